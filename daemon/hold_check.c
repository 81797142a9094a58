/*
 * hold_check.c - is everything that a row names there, and is every kept number right? One query
 * for each law; each gives the number of rows that break it.
 */
#include <stdio.h>

#include "hold.h"
#include "hold_own.h"

struct law {
    const char *says;
    const char *broken; /* counts the rows for which it does not hold */
};
static const struct law laws[] = {
    {"every copy has its mail",
     "SELECT count(*) FROM copy WHERE mail NOT IN (SELECT id FROM mail)"},
    {"every copy has its storm",
     "SELECT count(*) FROM copy WHERE storm NOT IN (SELECT id FROM storm)"},
    {"every copy has its recipient",
     "SELECT count(*) FROM copy WHERE recipient NOT IN (SELECT id FROM recipient)"},
    {"every copy has a state", "SELECT count(*) FROM copy WHERE state NOT IN (1, 2, 3, 4)"},
    {"a releasing copy has a time",
     "SELECT count(*) FROM copy WHERE state = 2 AND next_attempt IS NULL"},
    {"every mail has a copy", "SELECT count(*) FROM mail WHERE id NOT IN (SELECT mail FROM copy)"},
    {"every mail has its storm",
     "SELECT count(*) FROM mail WHERE storm NOT IN (SELECT id FROM storm)"},
    {"every mail has its contents, or says that they are lost",
     "SELECT count(*) FROM mail WHERE (head > 0 AND head NOT IN (SELECT id FROM content))"
     " OR (body > 0 AND body NOT IN (SELECT id FROM content))"},
    {"a mail has both contents or none",
     "SELECT count(*) FROM mail WHERE (head IS NULL) <> (body IS NULL)"},
    {"every storm has a copy",
     "SELECT count(*) FROM storm WHERE id NOT IN (SELECT storm FROM copy)"},
    {"a storm's references are whole contents",
     "SELECT count(*) FROM storm WHERE"
     " (head IS NOT NULL AND head NOT IN (SELECT id FROM content WHERE form < 2))"
     " OR (body IS NOT NULL AND body NOT IN (SELECT id FROM content WHERE form < 2))"},
    {"a delta's reference is there and no delta",
     "SELECT count(*) FROM content WHERE base > 0"
     " AND base NOT IN (SELECT id FROM content WHERE form < 2)"},
    {"every piece has its content",
     "SELECT count(*) FROM piece WHERE content NOT IN (SELECT id FROM content)"},
    {"every attempt has its mail",
     "SELECT count(*) FROM attempt WHERE mail NOT IN (SELECT id FROM mail)"},
    {"references are counted right",
     "SELECT count(*) FROM content LEFT JOIN (SELECT id, sum(n) AS n FROM ("
     " SELECT head AS id, count(*) AS n FROM mail GROUP BY head"
     " UNION ALL SELECT body, count(*) FROM mail GROUP BY body"
     " UNION ALL SELECT base, count(*) FROM content GROUP BY base"
     " UNION ALL SELECT head, count(*) FROM storm GROUP BY head"
     " UNION ALL SELECT body, count(*) FROM storm GROUP BY body) GROUP BY id) uses"
     " ON uses.id = content.id WHERE refs <> ifnull(n, 0)"},
    {"nothing unreferred to is kept", "SELECT count(*) FROM content WHERE refs = 0"},
    {"copies are counted right",
     "SELECT count(*) FROM (SELECT storm AS id, 1 + state AS what, count(*) AS n FROM copy"
     " GROUP BY storm, state) x LEFT JOIN count USING(id, what) WHERE x.n IS NOT count.n"},
    {"no copies are counted that are not there",
     "SELECT count(*) FROM count LEFT JOIN (SELECT storm AS id, 1 + state AS what, count(*) AS m"
     " FROM copy GROUP BY storm, state) x USING(id, what)"
     " WHERE id <> 0 AND what BETWEEN 2 AND 5 AND n <> ifnull(m, 0)"},
    {"sums are right", "SELECT count(*) FROM (SELECT what, sum(n) AS m FROM count WHERE id <> 0"
                       " GROUP BY what) LEFT JOIN count USING(what) WHERE id = 0 AND n <> m"},
    {"one policy is in force everywhere",
     "SELECT count(*) > 1 FROM policy_version WHERE state IN (1, 2) AND part = ''"},
    {"one policy is in force on a part of the mail",
     "SELECT count(*) > 1 FROM policy_version WHERE state IN (1, 2) AND part <> ''"},
    {"one policy waits to be confirmed", "SELECT count(*) > 1 FROM policy_version WHERE state = 1"},
    {"a policy has a state", "SELECT count(*) FROM policy_version WHERE state NOT IN (1, 2, 3, 4)"},
    {"there are sums", "SELECT count(*) FROM (SELECT DISTINCT what FROM count WHERE id <> 0)"
                       " WHERE what NOT IN (SELECT what FROM count WHERE id = 0)"},
    {"mails are counted right",
     "SELECT count(*) FROM (SELECT storm AS id, count(*) AS m FROM mail GROUP BY storm) x"
     " LEFT JOIN count ON count.id = x.id AND what = 9 WHERE m IS NOT n"},
    {"contents are counted right",
     "SELECT ifnull((SELECT n FROM count WHERE id = 0 AND what = 10), 0)"
     " <> (SELECT count(*) FROM content)"},
    {"bytes are counted right", "SELECT ifnull((SELECT n FROM count WHERE id = 0 AND what = 11), 0)"
                                " <> ifnull((SELECT sum(length(bytes)) FROM content), 0)"
                                " + ifnull((SELECT sum(length(bytes)) FROM piece), 0)"},
};

static int look(struct hold *h, char problem[512])
{
    int broken = 0;
    sqlite3_stmt *q = db_bind(&h->db, "PRAGMA integrity_check(1)", "");
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return -1;
    const char *word = (const char *)sqlite3_column_text(q, 0);
    if (strcmp(word, "ok") != 0) {
        snprintf(problem, 512, "the file is damaged: %.400s", word);
        broken = 1;
    }
    sqlite3_reset(q);
    for (size_t i = 0; i < sizeof(laws) / sizeof(laws[0]); i++) {
        int64_t n;
        if (db_ask(&h->db, &n, laws[i].broken, "") != 1)
            return -1;
        if (n && !broken)
            snprintf(problem, 512, "not so for %lld: %s", (long long)n, laws[i].says);
        broken += n > 0;
    }
    return broken;
}

int hold_check(struct hold *h, char problem[512])
{
    problem[0] = '\0';
    if (h->write && counts_flush(&h->counts))
        return -1;
    bool begun = hold_view_begin(h);
    int rc = look(h, problem);
    hold_view_end(h, begun);
    if (rc < 0)
        snprintf(problem, 512, "cannot be read: %s", sqlite3_errmsg(h->db.raw));
    return rc;
}
