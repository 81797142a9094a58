/*
 * words.c - where a message spends its time.
 *
 *   ASCII ----------------------------------------------------------\
 *   the rest -> code points -> their form: lower case, or a blank --+-> 1 KiB of text -> words
 *
 *   1 KiB of text -> lower case + a bit per byte (part of a word?) -> where the bits change ->
 * words by length -> hashed side by side
 *
 * No branch depends on a single letter; the cost is some steps a word, not a byte. A word that a
 * piece cuts goes on through the streaming hash.
 */
#include "words.h"

#if defined(__SSE2__) && !defined(BREAKWATER_PLAIN)
#include <emmintrin.h>
#endif

enum { CHUNK = 1024, BLOCK = 64 };

void words_begin(struct words *w, struct arena *a, const struct keys *k)
{
    memset(w, 0, sizeof *w);
    w->arena = a;
    w->keys = k;
}

static void words_grow(struct words *w)
{
    size_t cap = w->cap ? w->cap * 2 : 1024;
    w->hash = arena_grow(w->arena, w->hash, w->n * sizeof *w->hash, cap * sizeof *w->hash);
    w->cap = cap;
}

/* A whole word of n bytes. */
static inline void words_push(struct words *w, uint64_t hash, size_t n)
{
    if (w->bytes + n + 1 > LIMIT_TEXT) {
        w->full = true;
        return;
    }
    w->bytes += n + 1;
    if (w->n == w->cap)
        words_grow(w);
    w->hash[w->n++] = hash;
}

static void open_add(struct words *w, const uint8_t *lower, size_t n)
{
    if (w->full || n == 0)
        return;
    if (w->open.len == 0)
        sip_begin(&w->open, w->keys, SIP_WORD);
    sip_add(&w->open, lower, n);
    if (w->open.len >= LIMIT_TEXT)
        w->full = true;
}

void words_break(struct words *w)
{
    if (w->open.len && !w->full)
        words_push(w, sip_end(&w->open), (size_t)w->open.len);
    w->open.len = 0;
}

static inline bool ascii_alnum(uint8_t c)
{
    uint8_t lower = (uint8_t)(c | 0x20);
    return (lower >= 'a' && lower <= 'z') || byte_digit(c);
}

/* Beyond ASCII only letters and digits have a form of their own. */
static inline bool in_word(uint8_t c)
{
    return c >= 0x80 || ascii_alnum(c);
}

/* Lower-cases the ASCII of 64 bytes into out; bit i: byte i is part of a word. */
static inline uint64_t block_classify(const uint8_t *p, uint8_t *out)
{
    uint64_t bits = 0;
#if defined(__SSE2__) && !defined(BREAKWATER_PLAIN)
    for (unsigned i = 0; i < BLOCK; i += 16) {
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i upper = _mm_and_si128(_mm_cmpgt_epi8(c, _mm_set1_epi8('A' - 1)),
                                      _mm_cmplt_epi8(c, _mm_set1_epi8('Z' + 1)));
        __m128i low = _mm_or_si128(c, _mm_and_si128(upper, _mm_set1_epi8(0x20)));
        __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(low, _mm_set1_epi8('a' - 1)),
                                       _mm_cmplt_epi8(low, _mm_set1_epi8('z' + 1)));
        __m128i digit = _mm_and_si128(_mm_cmpgt_epi8(c, _mm_set1_epi8('0' - 1)),
                                      _mm_cmplt_epi8(c, _mm_set1_epi8('9' + 1)));
        _mm_storeu_si128((__m128i *)(void *)(out + i), low);
        __m128i in = _mm_or_si128(_mm_or_si128(letter, digit), c); /* of c the highest bit */
        bits |= (uint64_t)(unsigned)_mm_movemask_epi8(in) << i;
    }
#else
    for (unsigned i = 0; i < BLOCK; i++) {
        out[i] = byte_lower(p[i]);
        bits |= (uint64_t)in_word(p[i]) << i;
    }
#endif
    return bits;
}

/* How many bytes from p on are below 0x80. */
static size_t ascii_run(const uint8_t *p, size_t n)
{
    size_t at = 0;
    for (uint64_t w; at + 8 <= n; at += 8) {
        memcpy(&w, p + at, 8);
        if (w & UINT64_C(0x8080808080808080))
            break;
    }
    while (at < n && p[at] < 0x80)
        at++;
    return at;
}

/* Lower-cases up to CHUNK bytes and notes where words begin and end, in turn. Returns how many such
 * edges; an odd number: the last word touches the end. */
static size_t chunk_edges(const uint8_t *p, size_t n, uint8_t *lower, uint16_t *edge)
{
    uint8_t last[BLOCK];
    size_t edges = 0;
    uint64_t inside = 0; /* 1: in a word */
    for (size_t at = 0; at < n; at += BLOCK) {
        const uint8_t *block = p + at;
        if (n - at < BLOCK) { /* a word at the end goes on in what is filled in */
            memset(last, 'a', sizeof last);
            block = memcpy(last, block, n - at);
        }
        uint64_t bits = block_classify(block, lower + at);
        uint64_t changes = bits ^ (bits << 1 | inside);
        inside = bits >> 63;
        for (; changes; changes &= changes - 1)
            edge[edges++] = (uint16_t)(at + (unsigned)__builtin_ctzll(changes));
    }
    return edges;
}

/* Words of one class of lengths. */
struct batch {
    uint64_t first[CHUNK / 2 + SIP_LANES], last[CHUNK / 2 + SIP_LANES];
    uint16_t place[CHUNK / 2]; /* which word it is */
    size_t n;
};

/* Words of up to CHUNK bytes of text. Returns how many bytes are done: a word that touches the end
 * is left to the caller. */
static size_t chunk_words(struct words *w, const uint8_t *p, size_t n)
{
    uint8_t lower[CHUNK + 8];
    uint16_t edge[CHUNK + 1];
    size_t edges = chunk_edges(p, n, lower, edge), count = 0;
    while (w->cap == 0 || w->cap - w->n < edges / 2)
        words_grow(w);
    uint64_t *hash = w->hash + w->n;
    struct batch brief, other;
    brief.n = other.n = 0;
    for (; count < edges / 2; count++) {
        const uint8_t *word = lower + edge[2 * count];
        size_t length = (size_t)(edge[2 * count + 1] - edge[2 * count]);
        if (w->bytes + length + 1 > LIMIT_TEXT) {
            w->full = true;
            break;
        }
        w->bytes += length + 1;
        if (length >= 16) {
            hash[count] = sip_hash(w->keys, SIP_WORD, span_of(word, length));
            continue;
        }
        uint64_t last = sip_load(word + (length & 8));
        last &= (UINT64_C(1) << 8 * (length & 7)) - 1;
        last |= (uint64_t)length << 56;
        brief.last[brief.n] = other.last[other.n] = last;
        brief.place[brief.n] = other.place[other.n] = (uint16_t)count;
        other.first[other.n] = sip_load(word);
        brief.n += length < 8;
        other.n += length >= 8;
    }
    sip_many(w->keys, SIP_WORD, NULL, brief.last, brief.last, brief.n);
    sip_many(w->keys, SIP_WORD, other.first, other.last, other.last, other.n);
    for (size_t i = 0; i < brief.n; i++)
        hash[brief.place[i]] = brief.last[i];
    for (size_t i = 0; i < other.n; i++)
        hash[other.place[i]] = other.last[i];
    w->n += count;
    return edges & 1 ? edge[edges - 1] : n;
}

/* Letters and digits at the begin of s belong to the open word. Returns how many. */
static size_t open_continue(struct words *w, struct span s)
{
    uint8_t lower[64];
    size_t at = 0;
    while (at < s.n && in_word(s.p[at])) {
        size_t n = 0;
        while (n < sizeof lower && at < s.n && in_word(s.p[at]))
            lower[n++] = byte_lower(s.p[at++]);
        open_add(w, lower, n);
    }
    return at;
}

/* Text in its form, except that ASCII may be upper case. */
static void words_formed(struct words *w, struct span s)
{
    while (s.n && !w->full) {
        if (w->open.len) {
            s = span_from(s, open_continue(w, s));
            if (s.n == 0)
                return;
            words_break(w);
            continue;
        }
        size_t n = s.n < CHUNK ? s.n : CHUNK, done = chunk_words(w, s.p, n);
        s = span_from(s, done);
        if (n - done == s.n || done == 0) /* nothing after it, or longer than a chunk */
            s = span_from(s, open_continue(w, s));
    }
}

size_t utf8_write(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(c | (0xf00u >> n & 0xff));
    return n;
}

static void points_narrow(struct points *p, uint32_t first, uint32_t last)
{
    if (p->first < first)
        p->first = first;
    if (p->last > last)
        p->last = last;
}

/* What is no letter and no digit beyond ASCII; all else counts as one. Ascending. */
static const struct points separators[] = {
    {0x80, 0xa9},     {0xab, 0xb1},       {0xb4, 0xb4},        {0xb6, 0xb8},     {0xbb, 0xbf},
    {0xd7, 0xd7},     {0xf7, 0xf7},       {0x2c2, 0x2c5},      {0x2d2, 0x2df},   {0x2e5, 0x2eb},
    {0x2ed, 0x2ed},   {0x2ef, 0x2ff},     {0x37e, 0x37e},      {0x384, 0x385},   {0x387, 0x387},
    {0x3f6, 0x3f6},   {0x482, 0x482},     {0x55a, 0x55f},      {0x589, 0x58f},   {0x5be, 0x5be},
    {0x5c0, 0x5c0},   {0x5c3, 0x5c3},     {0x5c6, 0x5c6},      {0x5f3, 0x5f4},   {0x606, 0x60f},
    {0x61b, 0x61f},   {0x66a, 0x66d},     {0x6d4, 0x6d4},      {0x964, 0x965},   {0x970, 0x970},
    {0xe3f, 0xe3f},   {0xe4f, 0xe4f},     {0xe5a, 0xe5b},      {0x1680, 0x1680}, {0x2000, 0x206f},
    {0x207a, 0x207e}, {0x208a, 0x208e},   {0x20a0, 0x20cf},    {0x2100, 0x214f}, {0x2190, 0x2bff},
    {0x2e00, 0x2e7f}, {0x3000, 0x3004},   {0x3008, 0x3030},    {0x303d, 0x303f}, {0x30fb, 0x30fb},
    {0xd800, 0xf8ff}, {0xfd3e, 0xfd3f},   {0xfe10, 0xfe1f},    {0xfe30, 0xfe6f}, {0xff5f, 0xff65},
    {0xffe0, 0xffff}, {0x1f000, 0x1faff}, {0xe0000, 0x10ffff},
};

/* If it is not, narrows `same` to the points around it that are none. */
static bool is_separator(uint32_t c, struct points *same)
{
    size_t low = 0, high = sizeof separators / sizeof *separators;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > separators[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0)
        points_narrow(same, separators[low - 1].last + 1, UINT32_MAX);
    if (low == sizeof separators / sizeof *separators)
        return false;
    points_narrow(same, 0, separators[low].first - 1);
    return c >= separators[low].first;
}

/* Soft hyphen, zero width, direction marks, variation selectors: as if they were not there. */
static bool is_nothing(uint32_t c)
{
    return c == 0xad || (c >= 0x200b && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x2064) || (c >= 0xfe00 && c <= 0xfe0f) || c == 0xfeff;
}

/* Simple case folding by ranges: what lies in a range and has the range's parity (2: any) moves.
 * Narrows `same` to the points around that lie in no range: none if c does. */
static uint32_t lower_point(uint32_t c, struct points *same)
{
    static const struct {
        uint16_t first, last;
        uint8_t parity;
        int16_t move;
    } ranges[] = {
        {0xc0, 0xde, 2, 32},     {0x100, 0x12f, 0, 1},  {0x130, 0x130, 2, 'i' - 0x130},
        {0x132, 0x137, 0, 1},    {0x139, 0x148, 1, 1},  {0x14a, 0x177, 0, 1},
        {0x178, 0x178, 2, -121}, {0x179, 0x17e, 1, 1},  {0x17f, 0x17f, 2, 's' - 0x17f},
        {0x1cd, 0x1dc, 1, 1},    {0x1de, 0x1ef, 0, 1},  {0x1f8, 0x21f, 0, 1},
        {0x222, 0x233, 0, 1},    {0x246, 0x24f, 0, 1},  {0x386, 0x386, 2, 38},
        {0x388, 0x38a, 2, 37},   {0x38c, 0x38c, 2, 64}, {0x38e, 0x38f, 2, 63},
        {0x391, 0x3ab, 2, 32},   {0x400, 0x40f, 2, 80}, {0x410, 0x42f, 2, 32},
        {0x460, 0x481, 0, 1},    {0x48a, 0x4bf, 0, 1},  {0x4c1, 0x4ce, 1, 1},
        {0x4d0, 0x52f, 0, 1},    {0x531, 0x556, 2, 48}, {0x1e00, 0x1e95, 0, 1},
        {0x1ea0, 0x1eff, 0, 1},
    };
    size_t i = 0;
    for (; i < sizeof ranges / sizeof *ranges && c > ranges[i].last; i++)
        points_narrow(same, ranges[i].last + 1u, UINT32_MAX);
    if (i == sizeof ranges / sizeof *ranges)
        return c;
    points_narrow(same, 0, ranges[i].first - 1u);
    bool moves = c >= ranges[i].first && (ranges[i].parity == 2 || (c & 1) == ranges[i].parity);
    return moves ? (uint32_t)((int32_t)c + ranges[i].move) : c;
}

/* Compatibility forms that relays do change into plain ones (a small part of NFKC). */
static const char *plain_form(uint32_t c)
{
    static const char *const ligatures[] = {"ff", "fi", "fl", "ffi", "ffl", "st", "st"};
    switch (c) {
    case 0xaa:
        return "a";
    case 0xb2:
        return "2";
    case 0xb3:
        return "3";
    case 0xb5:
        return "\xce\xbc";
    case 0xb9:
        return "1";
    case 0xba:
        return "o";
    default:
        return c >= 0xfb00 && c <= 0xfb06 ? ligatures[c - 0xfb00] : NULL;
    }
}

/* The form that is hashed: nothing, a blank for a separator, or lower-case letters. How many
 * bytes. A text mostly stays within one stretch of letters that are their own form: that is
 * remembered. */
static size_t point_form(struct words *w, uint32_t c, uint8_t out[4])
{
    if (c >= 0xff01 && c <= 0xff5e)
        c -= 0xff01 - '!'; /* fullwidth ASCII */
    if (c < 0x80) {
        out[0] = byte_lower((uint8_t)c);
        return 1;
    }
    if (c >= w->same.first && c <= w->same.last)
        return utf8_write(out, c);
    if (is_nothing(c))
        return 0;
    struct points same = {0xc0, 0xfaff}; /* is_nothing() and plain_form() have nothing there that
                                            is_separator() has not */
    if (is_separator(c, &same)) {
        out[0] = ' ';
        return 1;
    }
    const char *plain = plain_form(c);
    if (plain) {
        memcpy(out, plain, strlen(plain));
        return strlen(plain);
    }
    uint32_t lower = lower_point(c, &same);
    if (c >= same.first && c <= same.last)
        w->same = same;
    return utf8_write(out, lower);
}

void words_point(struct words *w, uint32_t c)
{
    uint8_t form[4];
    size_t n = point_form(w, c, form);
    if (n && !in_word(form[0]))
        words_break(w);
    else
        open_add(w, form, n);
}

/* How many bytes from p on are not below 0x80. */
static size_t high_run(const uint8_t *p, size_t n)
{
    size_t at = 0;
    while (at < n && p[at] >= 0x80)
        at++;
    return at;
}

/* Takes some of the text by way of its form. Returns the rest. */
static struct span words_mixed(struct words *w, enum charset cs, struct charset_state *st,
                               struct span s, bool final)
{
    enum { POINTS = 32 };
    uint8_t form[CHUNK];
    size_t n = 0;
    while (sizeof form - n >= 4 * POINTS && (s.n || (final && st->npending))) {
        size_t ascii = st->npending ? 0 : ascii_run(s.p, s.n < POINTS ? s.n : POINTS), used;
        if (ascii) {
            memcpy(form + n, s.p, ascii);
            n += ascii;
            s = span_from(s, ascii);
            continue;
        }
        uint32_t point[POINTS];
        size_t high = s.n ? 1 + high_run(s.p + 1, (s.n < POINTS ? s.n : POINTS) - 1) : 0;
        size_t got =
            charset_decode(cs, st, span_head(s, high), final && high == s.n, point, POINTS, &used);
        for (size_t i = 0; i < got; i++)
            n += point_form(w, point[i], form + n);
        s = span_from(s, used);
    }
    words_formed(w, span_of(form, n));
    return s;
}

void words_text(struct words *w, enum charset cs, struct charset_state *st, struct span s,
                bool final)
{
    while (!w->full && (s.n || (final && st->npending))) {
        size_t ascii = st->npending ? 0 : ascii_run(s.p, s.n);
        if (ascii >= CHUNK || (ascii && ascii == s.n)) {
            words_formed(w, span_head(s, ascii));
            s = span_from(s, ascii);
        } else {
            s = words_mixed(w, cs, st, s, final);
        }
    }
    if (w->full)
        st->npending = 0;
}
