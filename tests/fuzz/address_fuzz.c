/* address_fuzz.c - any address list gives addresses, each with a local part and a domain. */
#include <stdlib.h>

#include "address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool check(void *arg, struct span s)
{
    size_t at = span_rfind(s, '@');
    ++*(size_t *)arg;
    must(s.n <= LIMIT_ADDRESS && at > 0 && at + 1 < s.n);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys keys;
    const uint8_t site[32] = {1};
    if (keys.mac == NULL && keys_open(&keys, site) != 0)
        return 0;
    struct arena *a = arena_new();
    struct span value = span_of(data, size);
    size_t n = 0;
    address_each(a, value, check, &n);
    must((address_first(a, value).n > 0) == (n > 0));
    struct message *m = message_new(a);
    message_add_field(m, SPAN("To"), span_head(value, size / 2));
    message_add_field(m, SPAN("Cc"), span_from(value, size / 2));
    struct visible v;
    visible_read(&v, m, &keys);
    must(v.n <= v.total && v.n <= LIMIT_VISIBLE);
    for (size_t i = 0; i < v.n; i++) {
        must(i == 0 || v.hash[i - 1] < v.hash[i]);
        must(visible_find(&v, keys_address(&keys, v.address[i], NULL)) >= 0);
    }
    arena_free(&a);
    return 0;
}
