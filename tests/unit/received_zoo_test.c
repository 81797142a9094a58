/*
 * received_zoo_test.c - the parser against somebody else's reading of many real Received lines.
 *
 * Skipped unless BREAKWATER_ZOO names a zstd-packed file of JSON lines
 * {"header": "from ...", "hop": {"by": ..., "ip": ...}, "sa": {"by": ..., "ip": ...} or text}.
 * Where both readings agree, ours must agree with them: `by` in 99.5 %, the address in 99 %.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>
#include <zstd.h>

#include "trace.h"

/* The whole file, unpacked and NUL-terminated; to be freed. */
static char *unpack(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    ZSTD_DStream *z = ZSTD_createDStream();
    char *text = NULL;
    size_t n = 0, got;
    uint8_t in[65536];
    while ((got = fread(in, 1, sizeof(in), f)) > 0) {
        ZSTD_inBuffer from = {in, got, 0};
        while (from.pos < from.size) {
            text = realloc(text, n + 262144 + 1);
            assert_non_null(text);
            ZSTD_outBuffer to = {text + n, 262144, 0};
            assert_false(ZSTD_isError(ZSTD_decompressStream(z, &to, &from)));
            n += to.pos;
        }
    }
    ZSTD_freeDStream(z);
    fclose(f);
    assert_non_null(text);
    text[n] = 0;
    return text;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool addr_same(const struct ipaddr *ip, const char *text)
{
    struct ipaddr want;
    return ipaddr_parse(&want, span_str(text)) ? memcmp(&want, ip, sizeof(want)) == 0
                                               : ip->family == 0;
}

static void zoo(void **state)
{
    (void)state;
    const char *path = getenv("BREAKWATER_ZOO");
    if (!path) {
        print_message("BREAKWATER_ZOO is not set\n");
        skip();
    }
    static const uint8_t site[32] = {1};
    struct keys keys;
    assert_int_equal(keys_open(&keys, site), 0);
    unsigned by_all = 0, by_same = 0, ip_all = 0, ip_same = 0;
    char *text = unpack(path), *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(line, 0, NULL);
        const json_t *hop = json_object_get(o, "hop"), *sa = json_object_get(o, "sa");
        struct arena *a = arena_new();
        struct hop h;
        trace_parse_hop(&h, a, &keys, span_str(text_of(o, "header")));
        if (*text_of(hop, "by") && *text_of(sa, "by")) {
            bool same = span_case_eq(h.by, span_str(text_of(hop, "by")));
            by_all++;
            by_same += same;
            if (!same)
                print_message("by %.*s: %s\n", SPAN_ARG(h.by), text_of(o, "header"));
        }
        if (*text_of(hop, "ip") && *text_of(sa, "ip")) {
            bool same = addr_same(&h.ip, text_of(hop, "ip"));
            char ip[48];
            ipaddr_print(&h.ip, ip);
            ip_all++;
            ip_same += same;
            if (!same)
                print_message("ip %s: %s\n", ip, text_of(o, "header"));
        }
        arena_free(&a);
        json_decref(o);
    }
    free(text);
    keys_close(&keys);
    print_message("by %u of %u, address %u of %u\n", by_same, by_all, ip_same, ip_all);
    assert_true(by_all > 0 && ip_all > 0);
    assert_true(by_same * 1000.0 >= by_all * 995.0);
    assert_true(ip_same * 100.0 >= ip_all * 99.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(zoo)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
