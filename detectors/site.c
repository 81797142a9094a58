/*
 * site.c - whose is a host, an address, a recipient.
 *
 * Called for several hops of every message: compares, never allocates.
 */
#include "site.h"

#include <libpsl.h>

enum { DNS_NAME = 253 }; /* longest host name (RFC 1035 2.3.4) */

void site_defaults(struct site *s)
{
    static const struct span exempt[] = {
        {(const uint8_t *)"postmaster@*", sizeof("postmaster@*") - 1},
        {(const uint8_t *)"abuse@*", sizeof("abuse@*") - 1},
    };
    const int64_t day = 86400 * INT64_C(1000);
    *s = (struct site){
        .exempt = (struct span *)exempt, /* lists of a site are never written through */
        .nexempt = sizeof exempt / sizeof *exempt,
        .a_extra = 1,
        .a_same = 3,
        .a_resend = 1,
        .a_list = 5,
        .a_internal = 2,
        .quick_rcpts = 3,
        .quick_domains = 2,
        .quick_visible = 0.9,
        .storm_dups = 10,
        .ttl_plain = day,
        .ttl_dup = 7 * day,
        .ttl_storm = 400 * day,
        .known_server = 7 * day,
        .name_min_detours = 3,
        .name_min_score = 3,
        .name_margin = 1,
        .bloom_days = 40,
        .bloom_error = 1e-3,
        .relay_probation = 30 * day,
        .replyall_audience = 30,
        .replyall_lasts = day / 6,
        .pingpong_marked = 3,
        .pingpong_same = 4,
        .pingpong_plain = 20,
    };
}

/* FNV-1a, by words. No stranger chooses any of these numbers: it needs no key. */
static uint64_t mixed(uint64_t hash, uint64_t v)
{
    hash = (hash ^ v) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

static uint64_t mixed_real(uint64_t hash, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return mixed(hash, bits);
}

/* Left out is what one node may have its own way: whose hosts are its own, whom it exempts, how
 * much it remembers for how long. */
uint64_t site_parameters_hash(const struct site *s)
{
    const uint64_t whole[] = {
        s->a_extra,
        s->a_same,
        s->a_resend,
        s->a_list,
        s->a_internal,
        s->quick_rcpts,
        s->quick_domains,
        s->storm_dups,
        (uint64_t)s->ttl_plain,
        (uint64_t)s->ttl_dup,
        (uint64_t)s->ttl_storm,
        (uint64_t)s->known_server,
        s->name_min_detours,
        s->replyall_audience,
        (uint64_t)s->replyall_lasts,
        s->pingpong_marked,
        s->pingpong_same,
        s->pingpong_plain,
    };
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        hash = mixed(hash, whole[i]);
    hash = mixed_real(hash, s->quick_visible);
    hash = mixed_real(hash, s->name_min_score);
    hash = mixed_real(hash, s->name_margin);
    return hash ? hash : 1;
}

/* ---- hosts ---- */

static bool host_in(struct span host, const struct span *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (span_eq(host, list[i]))
            return true;
    return false;
}

/* Is host one of the domains, or below one? */
static bool host_below(struct span host, const struct span *domain, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct span d = domain[i];
        if (d.n == 0 || host.n < d.n || !span_eq(span_from(host, host.n - d.n), d))
            continue;
        if (host.n == d.n || host.p[host.n - d.n - 1] == '.')
            return true;
    }
    return false;
}

bool site_has_domain(const struct site *s, struct span host)
{
    return host.n && host_below(host, s->own_domains, s->nown_domains);
}

bool site_has_host(const struct site *s, struct span host)
{
    return host.n && host_in(host, s->own_hosts, s->nown_hosts);
}

bool site_has_trusted(const struct site *s, struct span host)
{
    return host.n && host_below(host, s->trusted, s->ntrusted);
}

bool site_owns_host(const struct site *s, struct span host)
{
    return site_has_host(s, host) || site_has_domain(s, host);
}

bool site_trusts_host(const struct site *s, struct span host)
{
    return site_owns_host(s, host) || site_has_trusted(s, host);
}

struct span host_orglabel(struct span host)
{
    struct span org = host_org(host);
    struct ipaddr ip;
    if (span_starts(org, SPAN("[")) || ipaddr_parse(&ip, org))
        return org;
    return span_head(org, span_find(org, '.'));
}

/* Could this be a name in the DNS? Address literals and what HELO is sometimes filled with could
 * not. */
static bool host_is_name(struct span host)
{
    if (host.n == 0 || host.n > DNS_NAME || byte_digit(host.p[host.n - 1]))
        return false; /* no top-level domain ends in a digit, every dotted quad does */
    for (size_t i = 0; i < host.n; i++) {
        uint8_t c = host.p[i];
        bool word = (c >= 'a' && c <= 'z') || byte_digit(c) || c == '-' || c == '_';
        if (!word && c != '.')
            return false;
    }
    return true;
}

struct span host_org(struct span host)
{
    size_t dot = span_rfind(host, '.');
    if (dot == host.n || !host_is_name(host))
        return host;
    if (span_rfind(span_head(host, dot), '.') == dot)
        return host;         /* two labels: the registrable domain or a suffix, itself either way */
    char name[DNS_NAME + 1]; /* libpsl wants a string; its answer points into it */
    memcpy(name, host.p, host.n);
    name[host.n] = 0;
    const char *org = psl_registrable_domain(psl_builtin(), name);
    return org ? span_from(host, (size_t)(org - name)) : host;
}

bool host_loopback(struct span host)
{
    return span_eq(host, SPAN("localhost")) || span_starts(host, SPAN("localhost.")) ||
           span_starts(host, SPAN("127."));
}

/* ---- recipients ---- */

/* "local@domain" where either side of the pattern may be "*". RFC 5321 4.5.1: a bare "postmaster"
 * is the postmaster of this site. */
static bool address_matches(struct span address, struct span pattern)
{
    size_t at = span_rfind(address, '@'), pat = span_rfind(pattern, '@');
    struct span local = span_head(address, at), domain = span_from(address, at + 1);
    struct span plocal = span_head(pattern, pat), pdomain = span_from(pattern, pat + 1);
    if (!span_eq(plocal, SPAN("*")) && !span_case_eq(local, plocal))
        return false;
    return span_eq(pdomain, SPAN("*")) || span_case_eq(domain, pdomain);
}

bool site_exempt(const struct site *s, struct span address)
{
    for (size_t i = 0; i < s->nexempt; i++)
        if (address_matches(address, s->exempt[i]))
            return true;
    return false;
}

/* ---- addresses ---- */

static bool addr_in(const struct ipaddr *a, const struct netmask *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (netmask_has(&list[i], a))
            return true;
    return false;
}

bool site_has_addr(const struct site *s, const struct ipaddr *a)
{
    return addr_in(a, s->own_nets, s->nown_nets);
}

bool site_has_trusted_addr(const struct site *s, const struct ipaddr *a)
{
    return addr_in(a, s->trusted_nets, s->ntrusted_nets);
}

bool site_trusts_addr(const struct site *s, const struct ipaddr *a)
{
    return site_has_addr(s, a) || site_has_trusted_addr(s, a);
}

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Four decimal numbers up to 255, nothing else. */
static bool quad_parse(uint8_t out[4], struct span s)
{
    size_t i = 0;
    for (int part = 0; part < 4; part++) {
        unsigned v = 0;
        size_t digits = 0;
        for (; i < s.n && digits < 3 && byte_digit(s.p[i]); i++, digits++)
            v = v * 10 + (unsigned)(s.p[i] - '0');
        if (digits == 0 || v > 255)
            return false;
        out[part] = (uint8_t)v;
        if (part < 3 && (i == s.n || s.p[i++] != '.'))
            return false;
    }
    return i == s.n;
}

/* RFC 4291 2.2, all three forms; a zone ("%eth0") is dropped. */
static bool ipv6_parse(uint8_t out[16], struct span s)
{
    s = span_head(s, span_find(s, '%'));
    size_t i = 0, n = 0, gap = SIZE_MAX; /* n bytes are written; the :: stands before byte gap */
    memset(out, 0, 16);
    if (s.n >= 2 && s.p[0] == ':' && s.p[1] == ':') {
        gap = 0;
        i = 2;
    }
    while (i < s.n) {
        size_t end = i;
        unsigned v = 0;
        for (int h; end < s.n && end - i < 4 && (h = byte_hex(s.p[end])) >= 0; end++)
            v = v << 4 | (unsigned)h;
        if (end < s.n && s.p[end] == '.') {
            if (n > 12 || !quad_parse(out + n, span_from(s, i)))
                return false;
            n += 4;
            break;
        }
        if (end == i || n > 14)
            return false;
        out[n++] = (uint8_t)(v >> 8);
        out[n++] = (uint8_t)v;
        i = end;
        if (i == s.n)
            break;
        if (s.p[i++] != ':' || i == s.n)
            return false;
        if (s.p[i] == ':') {
            if (gap != SIZE_MAX)
                return false;
            gap = n;
            i++;
        }
    }
    if (gap == SIZE_MAX)
        return n == 16;
    if (n > 14)
        return false;
    memmove(out + 16 - (n - gap), out + gap, n - gap);
    memset(out + gap, 0, 16 - n);
    return true;
}

bool ipaddr_parse(struct ipaddr *a, struct span s)
{
    *a = (struct ipaddr){0};
    uint8_t b[16];
    if (s.n < 2 || s.n > 64)
        return false;
    if (span_find(s, ':') == s.n) {
        if (!quad_parse(b, s))
            return false;
        a->family = 4;
        memcpy(a->byte, mapped, 12);
        memcpy(a->byte + 12, b, 4);
        return true;
    }
    if (span_case_starts(s, SPAN("ipv6:")))
        s = span_from(s, 5);
    if (!ipv6_parse(b, s))
        return false;
    a->family = memcmp(b, mapped, 12) == 0 ? 4 : 6;
    memcpy(a->byte, b, 16);
    return true;
}

/* Writes v in the given base without leading zeros; returns the end. */
static char *put_number(char *p, unsigned v, unsigned base)
{
    char digit[8];
    size_t n = 0;
    do
        digit[n++] = "0123456789abcdef"[v % base];
    while ((v /= base) > 0);
    while (n)
        *p++ = digit[--n];
    return p;
}

static char *put_quad(char *p, const uint8_t *b)
{
    for (int i = 0; i < 4; i++) {
        if (i)
            *p++ = '.';
        p = put_number(p, b[i], 10);
    }
    return p;
}

/* RFC 5952: the first of the longest runs of at least two zero groups becomes "::". */
static char *put_ipv6(char *p, const uint8_t *b)
{
    unsigned group[8];
    int best = -1, longest = 1;
    for (int i = 0; i < 8; i++)
        group[i] = (unsigned)b[2 * i] << 8 | b[2 * i + 1];
    for (int i = 0; i < 8; i++) {
        int run = 0;
        while (i + run < 8 && group[i + run] == 0)
            run++;
        if (run > longest) {
            longest = run;
            best = i;
        }
        i += run;
    }
    for (int i = 0; i < 8; i++) {
        if (i == best) {
            *p++ = ':';
            if (i == 0)
                *p++ = ':';
            i += longest - 1;
            continue;
        }
        p = put_number(p, group[i], 16);
        if (i < 7)
            *p++ = ':';
    }
    return p;
}

size_t ipaddr_print(const struct ipaddr *a, char out[IPADDR_TEXT])
{
    char *end = out;
    if (a->family == 4)
        end = put_quad(out, a->byte + 12);
    if (a->family == 6)
        end = put_ipv6(out, a->byte);
    *end = 0;
    return (size_t)(end - out);
}

bool ipaddr_private(const struct ipaddr *a)
{
    static const struct netmask nets[] = {
        {{4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10}}, 104},
        {{4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 172, 16}}, 108},
        {{4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168}}, 112},
        {{4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127}}, 104},
        {{4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254}}, 112},
        {{6, {[15] = 1}}, 128},
        {{6, {0xfe, 0x80}}, 10},
        {{6, {0xfc}}, 7},
    };
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        if (a->family == nets[i].addr.family && netmask_has(&nets[i], a))
            return true;
    return false;
}

bool ipaddr_loopback(const struct ipaddr *a)
{
    static const uint8_t one[16] = {[15] = 1};
    return (a->family == 4 && a->byte[12] == 127) ||
           (a->family == 6 && memcmp(a->byte, one, sizeof one) == 0);
}

bool netmask_parse(struct netmask *m, struct span s)
{
    size_t slash = span_find(s, '/');
    if (!ipaddr_parse(&m->addr, span_head(s, slash)))
        return false;
    /* the written form decides how bits are counted: ::ffff:10.0.0.0/104 is an IPv6 prefix */
    unsigned width = span_find(s, ':') < s.n ? 128 : 32;
    uint64_t bits;
    if (slash == s.n) {
        m->bits = 128;
        return true;
    }
    struct span n = span_from(s, slash + 1);
    if (n.n > 3 || !span_number(n, width, &bits))
        return false;
    m->bits = (uint8_t)(128 - width + bits);
    return true;
}

bool netmask_has(const struct netmask *m, const struct ipaddr *a)
{
    if (a->family == 0)
        return false;
    size_t whole = m->bits / 8, rest = m->bits % 8;
    if (memcmp(m->addr.byte, a->byte, whole) != 0)
        return false;
    return rest == 0 || (m->addr.byte[whole] ^ a->byte[whole]) >> (8 - rest) == 0;
}
