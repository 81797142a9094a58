/* site_test.c - hosts, organisations, recipients and addresses: one case a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "site.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void organisations(void **state)
{
    (void)state;
    static const struct {
        const char *name, *host, *org, *label;
    } cases[] = {
        {"a host below a plain domain", "mx1.mail.example.com", "example.com", "example"},
        {"a suffix of two labels", "mail.shop.co.uk", "shop.co.uk", "shop"},
        {"a registrable domain is itself", "example.com", "example.com", "example"},
        {"a public suffix is itself", "co.uk", "co.uk", "co"},
        {"a deep public suffix is itself", "sch.uk", "sch.uk", "sch"},
        {"a top-level domain nobody registered", "sbs.alphaprint.local", "alphaprint.local",
         "alphaprint"},
        {"a single label is itself", "server", "server", "server"},
        {"an IPv4 address is itself", "192.0.2.7", "192.0.2.7", "192.0.2.7"},
        {"an IPv6 address is itself", "2001:db8::1.2.3.4", "2001:db8::1.2.3.4",
         "2001:db8::1.2.3.4"},
        {"a literal in brackets is itself", "[192.0.2.7]", "[192.0.2.7]", "[192.0.2.7]"},
        {"empty", "", "", ""},
        {"only dots", "...", "...", ""},
        {"a trailing dot stays", "a.b.example.com.", "example.com.", "example"},
        {"eight bits",
         "a.b.b\xfc"
         "cher.example",
         "a.b.b\xfc"
         "cher.example",
         "a"},
        {"a wildcard rule", "a.b.c.ck", "b.c.ck", "b"},
        {"an exception to a wildcard rule", "mail.www.ck", "www.ck", "www"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct span org = host_org(span_str(cases[i].host));
        struct span label = host_orglabel(span_str(cases[i].host));
        if (!span_eq(org, span_str(cases[i].org)) || !span_eq(label, span_str(cases[i].label)))
            fail_msg("%s: %.*s, %.*s", cases[i].name, SPAN_ARG(org), SPAN_ARG(label));
    }
}

static void a_long_name_is_itself(void **state)
{
    (void)state;
    uint8_t name[400];
    memset(name, 'a', sizeof(name));
    for (size_t i = 50; i < sizeof(name); i += 50)
        name[i] = '.';
    memcpy(name + sizeof(name) - 4, ".com", 4);
    struct span at_limit = span_from(span_of(name, sizeof(name)), sizeof(name) - 253);
    struct span beyond = span_from(span_of(name, sizeof(name)), sizeof(name) - 254);
    assert_true(host_org(at_limit).n < at_limit.n);
    assert_int_equal(host_org(beyond).n, beyond.n);
}

static void trust(void **state)
{
    (void)state;
    struct span own[] = {SPAN("mx.us.example"), SPAN("hub")}, domains[] = {SPAN("ours.example")};
    struct span trusted[] = {SPAN("backup.isp.example"), SPAN("filter.example")};
    struct site s;
    site_defaults(&s);
    s.own_hosts = own;
    s.nown_hosts = COUNT(own);
    s.own_domains = domains;
    s.nown_domains = COUNT(domains);
    s.trusted = trusted;
    s.ntrusted = COUNT(trusted);
    static const struct {
        const char *name, *host;
        bool owns, trusts;
    } cases[] = {
        {"an own host", "mx.us.example", true, true},
        {"a host below an own host is not", "a.mx.us.example", false, false},
        {"an own host of one label", "hub", true, true},
        {"an own domain", "ours.example", true, true},
        {"below an own domain", "a.b.ours.example", true, true},
        {"only ends like one", "notours.example", false, false},
        {"a trusted host", "backup.isp.example", false, true},
        {"its neighbour", "mail.isp.example", false, false},
        {"below a trusted domain", "mx7.filter.example", false, true},
        {"a stranger", "mail.example.org", false, false},
        {"no name", "", false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct span host = span_str(cases[i].host);
        if (site_owns_host(&s, host) != cases[i].owns ||
            site_trusts_host(&s, host) != cases[i].trusts)
            fail_msg("%s", cases[i].name);
    }
}

static void exempt_recipients(void **state)
{
    (void)state;
    struct span list[] = {SPAN("postmaster@*"), SPAN("archive@a.example"), SPAN("*@log.example")};
    struct site s, fresh;
    site_defaults(&s);
    site_defaults(&fresh);
    s.exempt = list;
    s.nexempt = COUNT(list);
    static const struct {
        const char *name, *address;
        bool want, by_default;
    } cases[] = {
        {"postmaster anywhere", "postmaster@any.example", true, true},
        {"in capitals", "PostMaster@Any.Example", true, true},
        {"postmaster of this site", "postmaster", true, true},
        {"abuse, by default", "abuse@any.example", false, true},
        {"a full address", "archive@a.example", true, false},
        {"the same local part elsewhere", "archive@b.example", false, false},
        {"a whole domain", "anybody@log.example", true, false},
        {"below that domain", "anybody@x.log.example", false, false},
        {"only begins alike", "postmasters@any.example", false, false},
        {"empty", "", false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (site_exempt(&s, span_str(cases[i].address)) != cases[i].want ||
            site_exempt(&fresh, span_str(cases[i].address)) != cases[i].by_default)
            fail_msg("%s", cases[i].name);
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* printed again; NULL: no address */
    } cases[] = {
        {"192.0.2.1", "192.0.2.1"},
        {"0.0.0.0", "0.0.0.0"},
        {"255.255.255.255", "255.255.255.255"},
        {"256.0.0.1", NULL},
        {"1.2.3", NULL},
        {"1.2.3.4.5", NULL},
        {"1.2.3.", NULL},
        {".1.2.3", NULL},
        {"1.2.3.4 ", NULL},
        {"0001.2.3.4", NULL},
        {"2001:DB8::1", "2001:db8::1"},
        {"IPv6:2001:db8::1", "2001:db8::1"},
        {"IPv6:::1", "::1"},
        {"::", "::"},
        {"1::", "1::"},
        {"fe80::1%eth0", "fe80::1"},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        {"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"},
        {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
        {"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        {"1:0:0:2:0:0:0:3", "1:0:0:2::3"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
        {"1:2:3:4:5:6:7", NULL},
        {"1:2:3:4:5:6:7:8:9", NULL},
        {"1:2:3:4:5:6:7:8::", NULL},
        {"1::2::3", NULL},
        {":1", NULL},
        {"1:", NULL},
        {":::", NULL},
        {"12345::", NULL},
        {"g::", NULL},
        {"1:2:3:4:5:6:7:1.2.3.4", NULL},
        {"::1.2.3", NULL},
        {"", NULL},
        {":", NULL},
        {"%", NULL},
        {"example.com", NULL},
        {"12:30:35", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ipaddr ip;
        char out[48];
        bool ok = ipaddr_parse(&ip, span_str(cases[i].text));
        size_t n = ipaddr_print(&ip, out);
        assert_int_equal(n, strlen(out));
        if (ok != (cases[i].want != NULL) || strcmp(out, cases[i].want ? cases[i].want : "") != 0)
            fail_msg("%s: %s", cases[i].text, out);
    }
}

static void private_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool want;
    } cases[] = {
        {"10.0.0.0", true},
        {"10.255.255.255", true},
        {"9.255.255.255", false},
        {"11.0.0.0", false},
        {"172.16.0.0", true},
        {"172.31.255.255", true},
        {"172.15.0.1", false},
        {"172.32.0.0", false},
        {"192.168.0.1", true},
        {"192.167.0.1", false},
        {"192.169.0.1", false},
        {"127.0.0.1", true},
        {"127.255.0.1", true},
        {"128.0.0.1", false},
        {"169.254.1.1", true},
        {"169.255.1.1", false},
        {"::1", true},
        {"::2", false},
        {"fe80::1", true},
        {"febf::1", true},
        {"fec0::1", false},
        {"fc00::1", true},
        {"fdff::1", true},
        {"fe00::1", false},
        {"2001:db8::1", false},
        {"::ffff:10.0.0.1", true},
        {"192.0.2.1", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ipaddr ip;
        assert_true(ipaddr_parse(&ip, span_str(cases[i].text)));
        if (ipaddr_private(&ip) != cases[i].want)
            fail_msg("%s", cases[i].text);
    }
    struct ipaddr none = {0};
    assert_false(ipaddr_private(&none));
}

static void networks(void **state)
{
    (void)state;
    static const struct {
        const char *net, *in, *out; /* in NULL: no network; out NULL: nothing is outside */
    } cases[] = {
        {"192.0.2.0/24", "192.0.2.255", "192.0.3.0"},
        {"192.0.2.128/25", "192.0.2.128", "192.0.2.127"},
        {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
        {"192.0.2.1/32", "192.0.2.1", "192.0.2.0"},
        {"0.0.0.0/0", "255.1.2.3", "2001:db8::1"},
        {"::/0", "2001:db8::1", NULL},
        {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"},
        {"2001:db8::1", "2001:db8::1", "2001:db8::2"},
        {"::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"},
        {"192.0.2.0/33", NULL, NULL},
        {"2001:db8::/129", NULL, NULL},
        {"192.0.2.0/", NULL, NULL},
        {"192.0.2.0/-1", NULL, NULL},
        {"192.0.2.0/0008", NULL, NULL},
        {"192.0.2/24", NULL, NULL},
        {"/24", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct netmask m;
        struct ipaddr ip;
        bool ok = netmask_parse(&m, span_str(cases[i].net));
        if (ok != (cases[i].in != NULL))
            fail_msg("%s: read as %d", cases[i].net, ok);
        if (ok && (!ipaddr_parse(&ip, span_str(cases[i].in)) || !netmask_has(&m, &ip)))
            fail_msg("%s: %s is outside", cases[i].net, cases[i].in);
        if (cases[i].out && (!ipaddr_parse(&ip, span_str(cases[i].out)) || netmask_has(&m, &ip)))
            fail_msg("%s: %s is inside", cases[i].net, cases[i].out);
    }
    struct netmask all;
    struct ipaddr none = {0};
    assert_true(netmask_parse(&all, SPAN("::/0")));
    assert_false(netmask_has(&all, &none));
}

static void own_networks_are_trusted(void **state)
{
    (void)state;
    struct site s;
    struct netmask own, trusted;
    struct ipaddr ip;
    site_defaults(&s);
    assert_true(netmask_parse(&own, SPAN("10.0.0.0/8")));
    assert_true(netmask_parse(&trusted, SPAN("2001:db8::/32")));
    assert_true(ipaddr_parse(&ip, SPAN("10.1.1.1")));
    assert_false(site_trusts_addr(&s, &ip));
    s.own_nets = &own;
    s.nown_nets = 1;
    s.trusted_nets = &trusted;
    s.ntrusted_nets = 1;
    assert_true(site_trusts_addr(&s, &ip));
    assert_true(ipaddr_parse(&ip, SPAN("2001:db8::9")));
    assert_true(site_trusts_addr(&s, &ip));
    assert_true(ipaddr_parse(&ip, SPAN("11.1.1.1")));
    assert_false(site_trusts_addr(&s, &ip));
}

/* Each parameter that a fold reads changes the hash; what a node may have its own way does not. */
static void parameters_that_must_agree(void **state)
{
    (void)state;
    struct site a, b;
    site_defaults(&a);
    site_defaults(&b);
    uint64_t usual = site_parameters_hash(&a);
    assert_true(usual != 0);
    assert_true(site_parameters_hash(&b) == usual);
#define DIFFERS(member)                                                                            \
    do {                                                                                           \
        site_defaults(&b);                                                                         \
        b.member += 1;                                                                             \
        assert_true(site_parameters_hash(&b) != usual);                                            \
    } while (0)
    DIFFERS(a_extra);
    DIFFERS(a_same);
    DIFFERS(a_resend);
    DIFFERS(a_list);
    DIFFERS(a_internal);
    DIFFERS(quick_rcpts);
    DIFFERS(quick_domains);
    DIFFERS(quick_visible);
    DIFFERS(storm_dups);
    DIFFERS(ttl_plain);
    DIFFERS(ttl_dup);
    DIFFERS(ttl_storm);
    DIFFERS(known_server);
    DIFFERS(name_min_detours);
    DIFFERS(name_min_score);
    DIFFERS(name_margin);
    DIFFERS(replyall_audience);
    DIFFERS(replyall_lasts);
    DIFFERS(pingpong_marked);
    DIFFERS(pingpong_same);
    DIFFERS(pingpong_plain);
    site_defaults(&b);
    b.nexempt = 0;
    b.bloom_days = 4;
    b.node = SPAN("another");
    assert_true(site_parameters_hash(&b) == usual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(organisations),
        cmocka_unit_test(a_long_name_is_itself),
        cmocka_unit_test(trust),
        cmocka_unit_test(exempt_recipients),
        cmocka_unit_test(addresses),
        cmocka_unit_test(private_addresses),
        cmocka_unit_test(networks),
        cmocka_unit_test(own_networks_are_trusted),
        cmocka_unit_test(parameters_that_must_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
