/* count.c - see count.h. */
#include "count.h"

static int write_one(struct db *db, int what, int64_t id, int64_t change)
{
    if (what == COUNT_REFERENCES)
        return db_run(db, "UPDATE content SET refs = refs + ?2 WHERE id = ?1", "ll", id, change);
    return db_run(db,
                  "INSERT INTO count(id, what, n) VALUES(?1, ?2, ?3)"
                  " ON CONFLICT DO UPDATE SET n = n + ?3",
                  "lil", id, what, change);
}

int counts_flush(struct counts *c)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->pending[i].change &&
            write_one(c->db, c->pending[i].what, c->pending[i].id, c->pending[i].change) < 0)
            return -1;
    c->n = 0;
    return 0;
}

static int add(struct counts *c, int what, int64_t id, int64_t change)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->pending[i].id == id && c->pending[i].what == what) {
            c->pending[i].change += change;
            return 0;
        }
    if (c->n == COUNT_PENDING && counts_flush(c))
        return -1;
    c->pending[c->n].what = what;
    c->pending[c->n].id = id;
    c->pending[c->n++].change = change;
    return 0;
}

int count_add(struct counts *c, int what, int64_t id, int64_t change)
{
    bool summed = what >= COUNT_COPIES && what <= COUNT_MAILS;
    return add(c, what, id, change) || (summed && add(c, what, 0, change)) ? -1 : 0;
}

void counts_forget(struct counts *c)
{
    c->n = 0;
}
