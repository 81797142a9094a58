/*
 * trace.c - Received fields (RFC 5321 4.4) as hops, hops as a path.
 *
 *   Received: from HELO (RDNS [IP]) by HOST (Software) with PROTO id ID for <ADDR>; DATE
 *             |---- from ---------| |-- by ----------| |- with --| |- id| |- for --|
 *
 *   header, newest first:  hop 0   hop 1 ... hop n-1
 *   path, oldest first:    source  by(n-1)[ip(n-2)] ... by(1)[ip(0)]  by(0)[our client]
 *
 * A server is named by its own word (`by`) and by the address the next server saw it come from
 * (its egress), so that two machines called server.local differ. Everything is total and linear:
 * at most LIMIT_HOPS lines of LIMIT_HOP_BYTES, comments nest to any depth, and a line nobody
 * understands still has an event of its own. Times are never evidence.
 */
#include "trace.h"

#include "date.h"

enum {
    HOPS_NEWEST = 16, /* kept of a header with more than LIMIT_HOPS Received fields ... */
    HOPS_OLDEST = LIMIT_HOPS - HOPS_NEWEST,
    HOST_BYTES = 255, /* of a host name kept (RFC 1035 2.3.4) */
    DELIVERED_TO = LIMIT_HOPS,
};

/* ---- one line: its clauses ---- */

enum clause { C_NONE, C_FROM, C_BY, C_VIA, C_WITH, C_ID, C_FOR, CLAUSES };

/* What follows a keyword up to the next one, comments included; and its first word outside them.
 * Only the first clause of a kind counts. */
struct clauses {
    struct span text[CLAUSES];
    struct span word[CLAUSES];
    bool seen[CLAUSES];
};

/* What ends a word of a line, and what ends a piece of a from clause. */
enum { WORD_END = 1, PIECE_END = 2 };
static const uint8_t ends[256] = {
    [' '] = WORD_END | PIECE_END,
    ['('] = WORD_END | PIECE_END,
    [')'] = WORD_END | PIECE_END,
    [';'] = WORD_END | PIECE_END,
    ['['] = PIECE_END,
    [']'] = PIECE_END,
    ['<'] = PIECE_END,
    ['>'] = PIECE_END,
    [','] = PIECE_END,
    ['='] = PIECE_END,
    ['@'] = PIECE_END,
    ['"'] = PIECE_END,
};

static enum clause keyword(struct span w)
{
    if (w.n < 2 || w.n > 4)
        return C_NONE;
    switch (w.p[0]) {
    case 'f':
        if (span_eq(w, SPAN("from")))
            return C_FROM;
        return span_eq(w, SPAN("for")) ? C_FOR : C_NONE;
    case 'b':
        return span_eq(w, SPAN("by")) ? C_BY : C_NONE;
    case 'v':
        return span_eq(w, SPAN("via")) ? C_VIA : C_NONE;
    case 'w':
        return span_eq(w, SPAN("with")) ? C_WITH : C_NONE;
    case 'i':
        return span_eq(w, SPAN("id")) ? C_ID : C_NONE;
    default:
        return C_NONE;
    }
}

/* Past the comment that opens at i (RFC 5322 3.2.2: they nest, a backslash quotes), or SIZE_MAX if
 * it never closes. */
static size_t comment_end(struct span s, size_t i)
{
    for (size_t depth = 0; i < s.n; i++) {
        if (s.p[i] == '\\')
            i++;
        else if (s.p[i] == '(')
            depth++;
        else if (s.p[i] == ')' && --depth == 0)
            return i + 1;
    }
    return SIZE_MAX;
}

/* Finds the clauses of s, which is lower case. flat: parentheses are blanks. False if a comment
 * never closes: then a second, flat reading finds what a stray "(" would hide. */
static bool clauses_read(struct clauses *c, struct span s, bool flat)
{
    *c = (struct clauses){0};
    enum clause now = C_NONE;
    size_t start = 0, i = 0; /* start of the clause that is being read, if it is the first */
    bool first = false;
    while (i < s.n) {
        if (s.p[i] == '(' && !flat) {
            i = comment_end(s, i);
            if (i == SIZE_MAX)
                return false;
            continue;
        }
        if (ends[s.p[i]] & WORD_END) {
            i++;
            continue;
        }
        size_t begin = i;
        while (i < s.n && !(ends[s.p[i]] & WORD_END))
            i++;
        struct span w = span_of(s.p + begin, i - begin);
        enum clause next = keyword(w);
        if (next == C_NONE || (next == C_FOR && now == C_FOR)) {
            if (c->word[now].n == 0)
                c->word[now] = w;
            continue;
        }
        if (first)
            c->text[now] = span_of(s.p + start, begin - start);
        now = next;
        first = !c->seen[now];
        c->seen[now] = true;
        start = i;
    }
    if (first)
        c->text[now] = span_of(s.p + start, s.n - start);
    return true;
}

/* ---- one line: who handed it over ---- */

/* An address literal, perhaps with a port ("192.0.2.1:4711"); colons: how many are in it. */
static bool literal_parse(struct ipaddr *ip, struct span s, size_t colons)
{
    if (colons == 0 && !(byte_digit(s.p[0]) && byte_digit(s.p[s.n - 1])))
        return false; /* a name, nearly always */
    if (colons == 1)
        s = span_head(s, span_find(s, ':'));
    return ipaddr_parse(ip, s);
}

/* A host as we compare it: no brackets, no trailing dot. */
static struct span host_clean(struct span w)
{
    while (w.n && (w.p[0] == '[' || w.p[0] == '<'))
        w = span_from(w, 1);
    while (w.n && (w.p[w.n - 1] == '.' || w.p[w.n - 1] == ']' || w.p[w.n - 1] == '>' ||
                   w.p[w.n - 1] == ','))
        w.n--;
    return span_head(w, HOST_BYTES);
}

struct span host_comparable(struct arena *a, struct span host)
{
    return host_clean(arena_lower(a, span_head(span_trim(host), HOST_BYTES)));
}

/* In a comment at i stands what follows "helo": "=user", "=[192.0.2.1]", " mail.example". Sets
 * the hop's helo and returns the position after it: a literal there is the client's own word. */
static size_t helo_read(struct hop *h, struct span s, size_t i)
{
    while (i < s.n && (s.p[i] == '=' || s.p[i] == ' '))
        i++;
    size_t begin = i;
    while (i < s.n && s.p[i] != ' ' && s.p[i] != ')')
        i++;
    struct span w = host_clean(span_of(s.p + begin, i - begin));
    if (w.n && !span_eq(w, SPAN("?")))
        h->helo = w;
    return i;
}

/*
 * The client address in a from clause. Servers write what they saw into the first comment with an
 * address in it, and there last: "(rdns [ip])", "([ip]:port helo=x)", "(HELO x) (ip)". Later
 * comments (login, certificate) hold what the client chose. Without one, it is a bare literal.
 *   from [10.0.0.153] (host [162.84.145.37])        162.84.145.37: the first literal is a HELO
 */
static void client_read(struct hop *h, struct span s)
{
    size_t depth = 0, i = 0;
    bool found = false; /* in the comment that is open */
    while (i < s.n) {
        uint8_t c = s.p[i];
        if (ends[c] & PIECE_END) {
            depth += c == '(';
            if (c == ')' && depth && --depth == 0 && found)
                return;
            i++;
            continue;
        }
        size_t begin = i, colons = 0;
        for (; i < s.n && !(ends[s.p[i]] & PIECE_END); i++)
            colons += s.p[i] == ':';
        struct span piece = span_of(s.p + begin, i - begin);
        struct ipaddr ip;
        if (depth && (span_eq(piece, SPAN("helo")) || span_eq(piece, SPAN("ehlo")))) {
            i = helo_read(h, s, i);
        } else if (literal_parse(&ip, piece, colons)) {
            h->ip = ip;
            found = depth > 0;
        }
    }
}

/* ---- one line: the whole ---- */

enum fetcher { FETCHER_NONE, FETCHER_PERSONAL, FETCHER_SERVER };

/* Which program that takes mail out of a mailbox names itself in s (lower case)? */
static enum fetcher fetcher_in(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (c != 'f' && c != 'g' && c != 'p')
            continue;
        struct span rest = span_from(s, i);
        if (span_starts(rest, SPAN("fetchmail")) || span_starts(rest, SPAN("getmail")))
            return FETCHER_PERSONAL;
        if (span_starts(rest, SPAN("pop3 connector")))
            return FETCHER_SERVER;
    }
    return FETCHER_NONE;
}

/* Taken out of a mailbox and posted again. Read in what the server says of itself, never in what a
 * client could choose (HELO, reverse name). */
static void fetcher_read(struct hop *h, const struct clauses *c)
{
    struct span with = c->word[C_WITH];
    enum fetcher f = fetcher_in(c->text[C_WITH]);
    f = f ? f : fetcher_in(c->text[C_BY]);
    h->fetched = f == FETCHER_PERSONAL;
    h->reinjected = f || span_starts(with, SPAN("pop3")) || span_starts(with, SPAN("imap")) ||
                    span_eq(with, SPAN("pop"));
}

static bool hop_local(const struct hop *h)
{
    return ipaddr_loopback(&h->ip) || host_loopback(h->by) || span_starts(h->with, SPAN("mapi")) ||
           span_starts(h->with, SPAN("local")) || span_starts(h->with, SPAN("lmtp"));
}

#define EACH_BYTE(c) (UINT64_MAX / 255 * (c))

/* Eight bytes, A to Z made a to z: bit 5 is set where a byte is ASCII, >= 'A' and not > 'Z'. */
static uint64_t lower8(uint64_t x)
{
    uint64_t low7 = x & EACH_BYTE(0x7f);
    uint64_t from_a = low7 + EACH_BYTE(0x80 - 'A'), beyond_z = low7 + EACH_BYTE(0x7f - 'Z');
    return x | ((~x & (from_a ^ beyond_z) & EACH_BYTE(0x80)) >> 2);
}

/* Might eight bytes need collapsing: a control character, or two blanks in a row? (The borrow of
 * these subtractions can only say so too often.) */
static bool ragged8(uint64_t x)
{
    uint64_t y = x ^ EACH_BYTE(' ');
    uint64_t blank = (y - EACH_BYTE(1)) & ~y & EACH_BYTE(0x80);
    uint64_t control = (x - EACH_BYTE('\r' + 1)) & ~x & EACH_BYTE(0x80);
    return control | (blank & (blank << 8)) | (blank & (blank >> 8));
}

/* Collapses blanks and trims into h->line; returns its lower-case twin. This is where most of the
 * time of a trace goes, hence eight bytes at a time where nothing is to be done. */
static struct span line_copy(struct hop *h, struct arena *a, struct span value)
{
    value = span_trim(span_head(value, LIMIT_HOP_BYTES));
    uint8_t *line = arena_alloc(a, 2 * value.n + 1), *low = line + value.n;
    size_t n = 0;
    for (size_t i = 0; i < value.n;) {
        uint64_t x;
        bool blank = n && line[n - 1] == ' ';
        if (value.n - i >= sizeof x && !(blank && value.p[i] == ' ')) {
            memcpy(&x, value.p + i, sizeof x);
            if (!ragged8(x)) {
                memcpy(line + n, &x, sizeof x);
                x = lower8(x);
                memcpy(low + n, &x, sizeof x);
                n += sizeof x;
                i += sizeof x;
                continue;
            }
        }
        uint8_t c = value.p[i++];
        if (!byte_space(c)) {
            line[n] = c;
            low[n++] = byte_lower(c);
        } else if (!blank) {
            line[n] = low[n] = ' ';
            n++;
        }
    }
    h->line = span_of(line, n);
    return span_of(low, n);
}

/* The part of low before the date; reads the date if there is one. */
static struct span date_cut(struct hop *h, struct span low)
{
    size_t semicolon = span_rfind(low, ';');
    if (semicolon == low.n || !date_parse(span_from(low, semicolon + 1), &h->date))
        return low;
    return span_head(low, semicolon);
}

/* Out of the pickup directory, as IIS and Exchange write it. Of a client that calls itself "pickup"
 * Exchange writes the address as well. */
static bool picked_up(const struct hop *h, struct span body)
{
    return span_starts(body, SPAN("from mail pickup service by ")) ||
           (span_starts(body, SPAN("from pickup by ")) &&
            span_starts(h->with, SPAN("microsoft smtp server")));
}

void trace_parse_hop(struct hop *h, struct arena *a, const struct keys *k, struct span value)
{
    *h = (struct hop){0};
    struct span low = line_copy(h, a, value);
    h->event = sip_hash(k, SIP_EVENT, h->line);
    struct span body = date_cut(h, low);
    struct clauses c;
    if (!clauses_read(&c, body, false))
        clauses_read(&c, body, true);

    h->by = host_clean(c.word[C_BY]);
    h->helo = host_clean(c.word[C_FROM]);
    client_read(h, c.text[C_FROM]);
    struct span with = c.text[C_WITH];
    h->with = span_trim(span_head(with, span_find(with, '(')));
    struct span id = host_clean(c.word[C_ID]);
    if (id.n) /* queue ids are case-sensitive: the same bytes of the line itself */
        h->id = span_of(h->line.p + (id.p - low.p), id.n);
    h->for_ = span_head(host_clean(c.word[C_FOR]), LIMIT_ADDRESS);
    if (h->for_.n)
        h->for_hash = keys_address(k, h->for_, NULL);
    fetcher_read(h, &c);
    h->local = hop_local(h);
    if (picked_up(h, body)) {
        h->reinjected = true;
        h->fetched = false;
        h->helo = h->by;
        h->ip = (struct ipaddr){0};
    }
}

/* ---- the header ---- */

/* Stands for n lines from f on; nothing is inferred across it. */
static const struct field *gap_fill(struct hop *h, struct arena *a, const struct keys *k,
                                    const struct message *m, const struct field *f, size_t n)
{
    struct sip sip;
    sip_begin(&sip, k, SIP_EVENT);
    *h = (struct hop){.gap = true};
    h->line = span_str(arena_printf(a, "(%zu lines left out)", n));
    for (; n && f; n--, f = message_next(m, f)) {
        struct span v = span_head(f->value, LIMIT_HOP_BYTES);
        sip_add(&sip, v.p, v.n);
    }
    h->event = sip_end(&sip);
    return f;
}

static void hops_read(struct trace *t, struct arena *a, const struct keys *k,
                      const struct message *m)
{
    size_t n = 0;
    const struct field *f = message_first(m, FIELD_RECEIVED);
    for (const struct field *each = f; each; each = message_next(m, each))
        n++;
    size_t omitted = n > LIMIT_HOPS ? n - LIMIT_HOPS : 0;
    t->total = m->count[FIELD_RECEIVED];
    t->hops = arena_alloc(a, (n - omitted + 1) * sizeof *t->hops);
    while (f) {
        if (omitted && t->nhops == HOPS_NEWEST) {
            f = gap_fill(&t->hops[t->nhops++], a, k, m, f, omitted);
            continue;
        }
        trace_parse_hop(&t->hops[t->nhops++], a, k, f->value);
        f = message_next(m, f);
    }
}

static void delivered_read(struct trace *t, struct arena *a, const struct message *m)
{
    size_t n = m->count[FIELD_DELIVERED_TO];
    if (n == 0)
        return;
    t->delivered_to =
        arena_alloc(a, (n < DELIVERED_TO ? n : DELIVERED_TO) * sizeof *t->delivered_to);
    const struct field *f = message_first(m, FIELD_DELIVERED_TO);
    for (; f && t->ndelivered_to < DELIVERED_TO; f = message_next(m, f)) {
        struct span v = arena_lower(a, span_head(span_trim(f->value), LIMIT_ADDRESS));
        if (v.n)
            t->delivered_to[t->ndelivered_to++] = v;
    }
}

void trace_parse(struct trace *t, struct arena *a, const struct keys *k, const struct message *m)
{
    *t = (struct trace){0};
    hops_read(t, a, k, m);
    delivered_read(t, a, m);
}

bool hop_pickup(const struct hop *h)
{
    return span_case_starts(h->line, HOP_PICKUP);
}

/* ---- the path ---- */

/* A host as the name of a server has it: as people are shown it, so that one who is named can be
 * known again by his name. Of a very long one the end; mostly all of it, as it is. */
static struct span host_shown(struct arena *a, struct span host)
{
    enum { MOST = SERVER_NAME - IPADDR_TEXT };
    size_t good = 0;
    host = span_from(host, host.n > MOST ? host.n - MOST : 0);
    while (good < host.n && host.p[good] > ' ' && host.p[good] <= '~')
        good++;
    if (good == host.n)
        return host;
    char *text = arena_alloc(a, host.n + 1);
    span_show(host, text, host.n + 1);
    return span_of(text, host.n);
}

/* "host[egress]"; a private egress says nothing outside its own network. */
static void node_name(struct node *n, struct arena *a, const struct keys *k, struct span host,
                      const struct ipaddr *egress)
{
    n->host = host.n ? host : SPAN("?");
    n->server = host_shown(a, n->host);
    n->host_hash = sip_hash(k, SIP_HOST, n->host);
    n->server_id = (uint32_t)n->host_hash;
    bool known = egress && egress->family && !ipaddr_private(egress);
    if (!known && n->server.p == n->host.p)
        return;
    if (known) {
        char ip[IPADDR_TEXT];
        size_t host_bytes = n->server.n, len = ipaddr_print(egress, ip);
        uint8_t *p = arena_alloc(a, host_bytes + len + 2);
        memcpy(p, n->server.p, host_bytes);
        p[host_bytes] = '[';
        memcpy(p + host_bytes + 1, ip, len);
        p[host_bytes + len + 1] = ']';
        n->server = span_of(p, host_bytes + len + 2);
    }
    n->server_id = (uint32_t)sip_hash(k, SIP_HOST, n->server);
}

/* The source of a message whose oldest known hop (or, without any, we ourselves) saw `ip` say
 * `helo`. Returns its event. */
static uint64_t source_fill(struct node *n, struct arena *a, const struct keys *k, struct span helo,
                            const struct ipaddr *ip)
{
    *n = (struct node){0};
    node_name(n, a, k, helo, ip);
    struct sip sip;
    sip_begin(&sip, k, SIP_EVENT);
    sip_add(&sip, helo.p, helo.n);
    sip_add(&sip, &ip->family, 1);
    sip_add(&sip, ip->byte, sizeof ip->byte);
    return sip_end(&sip);
}

/* Whose is each node? By its name; or by its address, as long as a server of ours saw it. */
static void path_own(struct path *p, const struct site *site, const struct ipaddr *client)
{
    bool believed = true;
    for (size_t i = p->n; i-- > 0;) {
        struct node *n = &p->node[i];
        const struct ipaddr *from = i + 1 == p->n ? client : &p->node[i + 1].hop->ip;
        if (n->hop && n->hop->gap) {
            n->own = true;
            believed = false;
            continue;
        }
        n->own = site_trusts_host(site, n->host) || (believed && site_trusts_addr(site, from));
        believed = believed && n->own;
    }
}

/* The last two labels of a host. Where they differ, the organisations differ. */
static struct span host_tail(struct span host)
{
    size_t dot = span_rfind(host, '.');
    if (dot == host.n)
        return host;
    size_t second = span_rfind(span_head(host, dot), '.');
    return second == dot ? host : span_from(host, second + 1);
}

/* Could a, b, a, b be hidden in this order of hosts? Cheap, and "no" for most mail; a long path is
 * simply looked at. */
enum { SHORT_PATH = 12 };

static bool may_circle(const struct span *host, size_t n)
{
    if (n > SHORT_PATH)
        return true;
    struct span tail[SHORT_PATH];
    for (size_t i = 0; i < n; i++)
        tail[i] = host_tail(host[i]);
    for (size_t x = 0; x + 3 < n; x++)
        for (size_t z = x + 2; z + 1 < n; z++) {
            if (!span_eq(tail[x], tail[z]))
                continue;
            for (size_t y = x + 1; y < z; y++)
                for (size_t w = z + 1; w < n; w++)
                    if (span_eq(tail[y], tail[w]))
                        return true;
        }
    return false;
}

/* The largest repetition of one organisation -> organisation edge, 0 if there is none. Local and
 * unnamed hops do not count, consecutive hops of one organisation are one. */
static unsigned path_cycle(const struct path *p)
{
    struct span run[PATH_MAX_NODES];
    size_t hosts = 0, n = 0;
    unsigned best = 1;
    for (size_t i = 0; i < p->n; i++) {
        const struct node *at = &p->node[i];
        bool counts = !(at->hop && at->hop->local) && !span_eq(at->host, SPAN("?"));
        if (counts && (hosts == 0 || !span_eq(run[hosts - 1], at->host)))
            run[hosts++] = at->host;
    }
    if (!may_circle(run, hosts))
        return 0;
    for (size_t i = 0; i < hosts; i++) {
        struct span org = host_org(run[i]);
        if (n == 0 || !span_eq(run[n - 1], org))
            run[n++] = org;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned times = 1;
        for (size_t j = i + 2; j + 1 < n; j++)
            times += span_eq(run[i], run[j]) && span_eq(run[i + 1], run[j + 1]);
        if (times > best)
            best = times;
    }
    return best > 1 ? best : 0;
}

/* id_0 = Sip(event_0), id_i = Sip(id_(i-1), event_i): equal ids, same acceptance. */
static uint64_t prefix_next(struct node *n, const struct keys *k, uint64_t former, uint64_t event)
{
    uint64_t id = sip_pair(k, SIP_EVENT, former, event);
    n->prefix_id = (uint32_t)id;
    return id;
}

void path_build(struct path *p, struct arena *a, const struct keys *k, const struct site *site,
                const struct trace *t, const struct ipaddr *client, struct span helo)
{
    *p = (struct path){.node = arena_alloc(a, (t->nhops + 1) * sizeof *p->node)};
    const struct hop *oldest = t->nhops ? &t->hops[t->nhops - 1] : NULL;
    uint64_t id = 0;
    if (!oldest || !oldest->reinjected) {
        struct node *n = &p->node[p->n++];
        uint64_t event = oldest ? source_fill(n, a, k, oldest->helo, &oldest->ip)
                                : source_fill(n, a, k, host_comparable(a, helo), client);
        id = prefix_next(n, k, id, event);
    }
    for (size_t i = t->nhops; i-- > 0;) {
        const struct hop *h = &t->hops[i];
        struct node *n = &p->node[p->n++];
        *n = (struct node){.hop = h};
        if (h->gap)
            node_name(n, a, k, SPAN("(gap)"), NULL);
        else
            node_name(n, a, k, h->by, i ? &t->hops[i - 1].ip : client);
        id = prefix_next(n, k, id, h->event);
        p->reinjected = p->reinjected || (h->reinjected && h != oldest);
    }
    path_own(p, site, client);
    p->cycle = path_cycle(p);
}
