/* api_guard.c - see api_guard.h. */
#include "api_guard.h"

static json_t *alarms(struct alarm *alarm)
{
    struct alarm_figures f = {0};
    json_t *j = json_object();
    if (alarm)
        alarm_figures(alarm, &f);
    json_object_set_new(j, "sent", json_integer((json_int_t)f.sent));
    json_object_set_new(j, "commands", json_integer((json_int_t)f.commands));
    json_object_set_new(j, "command_failures", json_integer((json_int_t)f.command_failures));
    json_object_set_new(j, "mails", json_integer((json_int_t)f.mails));
    json_object_set_new(j, "mail_failures", json_integer((json_int_t)f.mail_failures));
    json_object_set_new(j, "dropped", json_integer((json_int_t)f.dropped));
    return j;
}

void api_guard(struct watch *watch, struct alarm *alarm, struct http_request *r)
{
    if (!watch) {
        http_problem(r, 404, "There is no guard here.");
        return;
    }
    json_t *j = watch_document(watch);
    json_object_set_new(j, "alarms", alarms(alarm));
    http_reply(r, 200, j);
}

json_t *api_guard_brief(struct watch *watch)
{
    static const char *const members[] = {"state", "trip", "capped", "connections"};
    if (!watch)
        return json_null();
    json_t *all = watch_document(watch), *j = json_object();
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        json_object_set(j, members[i], json_object_get(all, members[i]));
    json_decref(all);
    return j;
}
