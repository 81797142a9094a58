/* stamp.c - see stamp.h. What is read is what would be written: the MAC covers every byte. */
#include <stdio.h>

#include "stamp.h"

enum { MAC_BYTES = 8, NODE_MOST = 64 };

static void put_hex(char *out, const uint8_t *p, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digit[p[i] >> 4];
        *out++ = digit[p[i] & 15];
    }
    *out = 0;
}

static bool read_hex(struct span s, uint8_t *out)
{
    for (size_t i = 0; i + 1 < s.n; i += 2) {
        int high = byte_hex(s.p[i]), low = byte_hex(s.p[i + 1]);
        if (high < 0 || low < 0)
            return false;
        *out++ = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void stamp_mac(const struct keys *k, struct span text, uint8_t mac[MAC_BYTES])
{
    keys_mac(k, "stamp", &text, 1, mac, MAC_BYTES);
}

void stamp_print(const struct keys *k, struct span node, int64_t now, const struct key *key,
                 char out[STAMP_TEXT])
{
    char name[NODE_MOST + 1], hex[2 * sizeof key->byte + 1], sum[2 * MAC_BYTES + 1];
    uint8_t mac[MAC_BYTES];
    span_show(node, name, sizeof name);
    for (char *c = name; *c; c++)
        if (*c == ';')
            *c = '?';
    put_hex(hex, key->byte, sizeof key->byte);
    int n = snprintf(out, STAMP_TEXT, "v=1; k=%08x; n=%s; t=%llx; m=%s", k->id, name,
                     (unsigned long long)now, hex);
    stamp_mac(k, span_of(out, (size_t)n), mac);
    put_hex(sum, mac, sizeof mac);
    snprintf(out + n, STAMP_TEXT - (size_t)n, "; s=%s", sum);
}

/* Without the folding that relays may add; empty if it is too long to be one. */
static struct span unfolded(struct span value, char text[STAMP_TEXT])
{
    size_t n = 0;
    bool blank = false;
    value = span_trim(value);
    for (size_t i = 0; i < value.n; i++) {
        if (byte_space(value.p[i])) {
            blank = true;
            continue;
        }
        if (n + 2 > STAMP_TEXT)
            return span_of(NULL, 0);
        if (blank)
            text[n++] = ' ';
        blank = false;
        text[n++] = (char)value.p[i];
    }
    return span_of(text, n);
}

/* Cuts "NAME" and 2 * n hex digits off the end of text. */
static bool cut_hex(struct span *text, struct span name, uint8_t *out, size_t n)
{
    size_t size = name.n + 2 * n;
    if (text->n < size)
        return false;
    struct span tail = span_from(*text, text->n - size);
    *text = span_head(*text, text->n - size);
    return span_starts(tail, name) && read_hex(span_from(tail, name.n), out);
}

bool stamp_read(const struct keys *k, struct span value, struct key *key)
{
    char buffer[STAMP_TEXT], begin[24];
    uint8_t said[MAC_BYTES], mac[MAC_BYTES], differ = 0;
    struct span text = unfolded(value, buffer);
    snprintf(begin, sizeof begin, "v=1; k=%08x; n=", k->id);
    if (!span_starts(text, span_str(begin)) || !cut_hex(&text, SPAN("; s="), said, sizeof said))
        return false;
    stamp_mac(k, text, mac);
    for (size_t i = 0; i < sizeof mac; i++) /* takes the same time wherever they differ */
        differ |= (uint8_t)(mac[i] ^ said[i]);
    return !differ && cut_hex(&text, SPAN("; m="), key->byte, sizeof key->byte);
}

size_t stamps_read(const struct keys *k, const struct message *m, struct key out[STAMPS_MAX])
{
    const struct field *last[STAMPS_MAX];
    size_t seen = 0, n = 0;
    for (const struct field *f = message_first(m, FIELD_STAMP); f; f = message_next(m, f))
        last[seen++ % STAMPS_MAX] = f;
    size_t kept = seen < STAMPS_MAX ? seen : STAMPS_MAX;
    for (size_t i = 1; i <= kept; i++)
        n += stamp_read(k, last[(seen - i) % STAMPS_MAX]->value, &out[n]);
    return n;
}
