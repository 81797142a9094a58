/* store_step.c - the states one message touches, in a past that is shared: sharedstates.h as a call
 * of the store. */
#include "arena.h"
#include "sharedstates.h"
#include "store_redis_own.h"

struct stepping {
    struct store_op_base base; /* must be first */
    struct shared_steps *steps;
    store_done_fn *done;
    void *arg;
};

static void stepped(void *arg)
{
    struct stepping *s = arg;
    shared_steps_end(&s->steps);
    s->done(s->arg);
}

static void step_cancel(struct store *st, struct store_op *op)
{
    (void)st;
    shared_steps_end(&((struct stepping *)op)->steps);
}

enum store_state shared_step(struct store *st, const struct subject *subject,
                             struct signals *signals, store_done_fn *done, void *arg,
                             struct store_op **op)
{
    struct memory *m = memory_of(st);
    struct sharing *all = m->sharing;
    struct store_thread *t = store_thread_here();
    bool alone = !t || t->all != all || !atomic_load_explicit(&all->allowed, memory_order_relaxed);
    struct shared_steps *steps =
        alone ? NULL : shared_steps_ask(t->redis, all->settings, m->states, subject);
    if (!steps)
        return memory_ops.step(st, subject, signals, done, arg, op);
    struct stepping *s = arena_zero(subject->arena, sizeof *s);
    *s = (struct stepping){.base.cancel = step_cancel, .steps = steps, .done = done, .arg = arg};
    if (shared_steps_go(steps, signals, stepped, s))
        return STORE_DONE;
    *op = (struct store_op *)s;
    return STORE_WAIT;
}
