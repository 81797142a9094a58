/*
 * nullmilter - the least a libmilter filter can do (built on the distribution's libmilter).
 *   nullmilter MODE ADDR     ADDR as libmilter wants it: inet:PORT@127.0.0.1 or unix:/path
 *   MODE  null    every callback is there and returns CONTINUE (each step is a round trip)
 *         nr      same, but asks for no replies except at the end of the message
 */
#include "bench.h"
#include <libmilter/mfapi.h>

static bool nr;

static sfsistat step(void)
{
    return nr ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat m_connect(SMFICTX *x, char *h, _SOCK_ADDR *a)
{
    (void)x, (void)h, (void)a;
    return step();
}

static sfsistat m_helo(SMFICTX *x, char *h)
{
    (void)x, (void)h;
    return step();
}

static sfsistat m_path(SMFICTX *x, char **a)
{
    (void)x, (void)a;
    return step();
}

static sfsistat m_step(SMFICTX *x)
{
    (void)x;
    return step();
}

static sfsistat m_header(SMFICTX *x, char *n, char *v)
{
    (void)x, (void)n, (void)v;
    return step();
}

static sfsistat m_body(SMFICTX *x, unsigned char *p, size_t n)
{
    (void)x, (void)p, (void)n;
    return step();
}

static sfsistat m_end(SMFICTX *x)
{
    (void)x;
    return SMFIS_CONTINUE;
}

static sfsistat m_negotiate(SMFICTX *x, unsigned long a, unsigned long p, unsigned long u,
                            unsigned long v, unsigned long *pa, unsigned long *pp,
                            unsigned long *pu, unsigned long *pv)
{
    (void)x, (void)a, (void)u, (void)v;
    *pa = 0;
    *pp = p & (nr ? SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_DATA |
                        SMFIP_NR_HDR | SMFIP_NR_EOH | SMFIP_NR_BODY
                  : 0ul);
    *pu = *pv = 0;
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: nullmilter null|nr ADDR");
    umask(0);
    nr = strcmp(argv[1], "nr") == 0;
    char name[] = "nullmilter";
    struct smfiDesc d = {.xxfi_name = name,
                         .xxfi_version = SMFI_VERSION,
                         .xxfi_connect = m_connect,
                         .xxfi_helo = m_helo,
                         .xxfi_envfrom = m_path,
                         .xxfi_envrcpt = m_path,
                         .xxfi_data = m_step,
                         .xxfi_header = m_header,
                         .xxfi_eoh = m_step,
                         .xxfi_body = m_body,
                         .xxfi_eom = m_end,
                         .xxfi_negotiate = m_negotiate};
    if (smfi_setconn(argv[2]) != MI_SUCCESS || smfi_register(d) != MI_SUCCESS ||
        smfi_setbacklog(1024) != MI_SUCCESS)
        die("libmilter setup failed");
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
