/* log_test.c - no value, however hostile, changes the shape of a log line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

static int saved_stderr, reader;

static void catch_stderr(void)
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fd[1], STDERR_FILENO);
    close(fd[1]);
    reader = fd[0];
}

/* What was written since catch_stderr(); at most a pipe's buffer. */
static size_t caught(char *out, size_t cap)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    ssize_t n = read(reader, out, cap - 1);
    close(reader);
    assert_true(n >= 0);
    out[n] = '\0';
    return (size_t)n;
}

static void values_are_written_so_that_they_can_be_read_back(void **state)
{
    (void)state;
    const struct {
        const char *what;
        struct span value;
        const char *line;
    } t[] = {
        {"a plain word stands bare", SPAN("hold"), "tx=1 k=hold\n"},
        {"a host with an address stands bare", SPAN("a.example[192.0.2.7]"),
         "tx=1 k=a.example[192.0.2.7]\n"},
        {"an address in brackets stands bare", SPAN("<a+b@c.example>"), "tx=1 k=<a+b@c.example>\n"},
        {"an empty value is quoted", SPAN(""), "tx=1 k=\"\"\n"},
        {"a blank is quoted", SPAN("a b"), "tx=1 k=\"a b\"\n"},
        {"an equals sign is quoted, so that no key can be forged", SPAN("a k2=b"),
         "tx=1 k=\"a k2=b\"\n"},
        {"a line end does not end the line", SPAN("a\r\ntx=2"), "tx=1 k=\"a\\x0d\\x0atx=2\"\n"},
        {"a quote does not end the value", SPAN("a\" b=\""), "tx=1 k=\"a\\x22 b=\\x22\"\n"},
        {"a backslash cannot forge an escape", SPAN("\\x41"), "tx=1 k=\"\\x5cx41\"\n"},
        {"escape, delete and NUL are written as numbers", SPAN("\x1b[2J\x7f\0"),
         "tx=1 k=\"\\x1b[2J\\x7f\\x00\"\n"},
        {"UTF-8 and C1 are written as numbers", SPAN("\xc3\xa9\x9b"),
         "tx=1 k=\"\\xc3\\xa9\\x9b\"\n"},
    };
    log_open("stderr", LOG_LEVEL_INFO);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct logline l;
        char out[256];
        catch_stderr();
        log_begin(&l, LOG_LEVEL_INFO, "tx", SPAN("1"));
        log_span(&l, "k", t[i].value);
        log_end(&l);
        caught(out, sizeof out);
        if (strcmp(out, t[i].line) != 0)
            fail_msg("%s: %s", t[i].what, out);
    }
}

static void a_line_is_bounded_and_whole(void **state)
{
    (void)state;
    static char big[100000], out[9000];
    memset(big, '\n', sizeof big);
    struct logline l;
    log_open("stderr", LOG_LEVEL_INFO);
    catch_stderr();
    log_begin(&l, LOG_LEVEL_INFO, "tx", SPAN("1"));
    log_span(&l, "one", span_of(big, sizeof big));
    size_t one = l.n;
    for (int i = 0; i < 20; i++)
        log_span(&l, "k", span_of(big, sizeof big));
    log_end(&l);
    size_t n = caught(out, sizeof out);
    assert_int_equal(one, strlen("tx=1 one=\"\"") + 512 * 4);
    assert_true(n > 4000 && n <= 4096);
    assert_int_equal(out[n - 1], '\n');
    assert_null(memchr(out, '\n', n - 1));
    size_t quotes = 0;
    for (size_t i = 0; i < n; i++)
        quotes += out[i] == '"';
    assert_int_equal(quotes % 2, 0);
}

static void levels_choose(void **state)
{
    (void)state;
    static const struct {
        enum log_level wanted, said;
        bool written;
    } t[] = {
        {LOG_NOTHING, LOG_LEVEL_ERROR, false},      {LOG_LEVEL_ERROR, LOG_LEVEL_ERROR, true},
        {LOG_LEVEL_ERROR, LOG_LEVEL_NOTICE, false}, {LOG_LEVEL_NOTICE, LOG_LEVEL_NOTICE, true},
        {LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, false},  {LOG_LEVEL_DEBUG, LOG_LEVEL_DEBUG, true},
        {LOG_LEVEL_DEBUG, LOG_NOTHING, false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char out[256];
        log_open("stderr", t[i].wanted);
        catch_stderr();
        log_say(t[i].said, "%s", "x");
        fputc('.', stderr); /* so that reading does not wait */
        caught(out, sizeof out);
        assert_string_equal(out, t[i].written ? "id=daemon msg=x\n." : ".");
        assert_int_equal(log_wants(t[i].said), t[i].written);
    }
}

static void numbers_and_absent_strings(void **state)
{
    (void)state;
    struct logline l;
    log_open("stderr", LOG_LEVEL_INFO);
    log_begin(&l, LOG_LEVEL_INFO, "tx", SPAN("1"));
    log_str(&l, "absent", NULL);
    log_num(&l, "n", -9223372036854775807LL - 1);
    l.text[l.n] = '\0';
    assert_string_equal(l.text, "tx=1 n=-9223372036854775808");
}

static void escaped_text_fits_what_it_is_given(void **state)
{
    (void)state;
    const struct {
        const char *what;
        size_t cap;
        struct span in;
        const char *out;
    } t[] = {
        {"room for all", 8, SPAN("a\nb"), "a\\x0ab"},
        {"exactly room", 7, SPAN("a\nb"), "a\\x0ab"},
        {"no half escapes", 5, SPAN("a\nb"), "a"},
        {"room for the NUL only", 1, SPAN("a"), ""},
        {"nothing in", 4, {NULL, 0}, ""},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char out[16];
        memset(out, '#', sizeof out);
        assert_int_equal(escape_text(out, t[i].cap, t[i].in), strlen(t[i].out));
        assert_string_equal(out, t[i].out);
        assert_int_equal(out[t[i].cap], '#');
    }
    assert_int_equal(escape_text(NULL, 0, SPAN("a")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_written_so_that_they_can_be_read_back),
        cmocka_unit_test(a_line_is_bounded_and_whole),
        cmocka_unit_test(levels_choose),
        cmocka_unit_test(numbers_and_absent_strings),
        cmocka_unit_test(escaped_text_fits_what_it_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
