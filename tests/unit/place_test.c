/* place_test.c - the texts of sockets: one grammar for listening, connecting and checking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "place.h"

/* The address read from text, written anew; "" if it is none. */
static const char *read_back(const char *text, char out[160])
{
    struct sockaddr_storage ss;
    socklen_t n;
    char host[INET6_ADDRSTRLEN];
    out[0] = '\0';
    if (!place_address(span_str(text), &ss, &n))
        return out;
    const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ss;
    if (ss.ss_family == AF_UNIX) {
        assert_int_equal(n, sizeof(struct sockaddr_un));
        snprintf(out, 160, "unix %s", ((const struct sockaddr_un *)&ss)->sun_path);
    } else if (ss.ss_family == AF_INET) {
        assert_int_equal(n, sizeof *in);
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, 160, "4 %s %d", host, ntohs(in->sin_port));
    } else {
        assert_int_equal(n, sizeof *in6);
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(out, 160, "6 %s %d", host, ntohs(in6->sin6_port));
    }
    return out;
}

static void one_text_is_one_address(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "unix:/%0107d", 0);
    const struct {
        const char *text, *address;
        bool listen, target; /* may a configuration say so? */
    } cases[] = {
        {"inet:8895@127.0.0.1", "4 127.0.0.1 8895", true, false},
        {"inet6:65535@::1", "6 ::1 65535", true, false},
        {"127.0.0.1:25", "4 127.0.0.1 25", false, true},
        {"[::1]:25", "6 ::1 25", false, true},
        {"unix:/run/x", "unix /run/x", true, true},
        {"unix:x", "unix x", false, false},
        {"inet:65536@127.0.0.1", "", false, false},
        {"inet:0@127.0.0.1", "", false, false},
        {"inet:25@::1", "", false, false},
        {"inet6:25@127.0.0.1", "", false, false},
        {"inet:25", "", false, false},
        {"inet:@127.0.0.1", "", false, false},
        {"127.0.0.1:0", "", false, false},
        {"127.0.0.1", "", false, false},
        {"127.0.0.1:25 ", "", false, false},
        {"::1:25", "", false, false},
        {"[127.0.0.1]:25", "", false, false},
        {"localhost:25", "", false, false},
        {"unix:", "", false, false},
        {"", "", false, false},
        {path, "", false, false}, /* a byte too long */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span s = span_str(cases[i].text);
        char out[160];
        if (strcmp(read_back(cases[i].text, out), cases[i].address) != 0 ||
            place_listen(s) != cases[i].listen || place_target(s) != cases[i].target)
            fail_msg("%s: read as '%s', listen %d, target %d", cases[i].text, out, place_listen(s),
                     place_target(s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_text_is_one_address)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
