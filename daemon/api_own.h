/*
 * api_own.h - the inside of the API, shared by api.c (status, changes, the table of routes) and
 * api_read.c (storms, the hold queue, where is my mail). Include it after api.h.
 */
#ifndef API_OWN_H
#define API_OWN_H

#include "id.h"
#include "json.h"

static inline void set(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

static inline void set_num(json_t *o, const char *name, uint64_t n)
{
    set(o, name, json_integer((json_int_t)n));
}

static inline json_t *json_id(uint64_t id)
{
    char text[ID_TEXT];
    id_print(id, text);
    return json_string(text);
}

/* Copies of one incident (NULL: all) by state; NULL: unreadable. */
json_t *queue_json(const struct api *, const char *incident);

/* All copies of it, whatever their state. */
uint64_t queue_size(const json_t *queue);

/* The routes of api_read.c. arg: what the star of their path stands for. */
typedef void route_fn(struct api *, struct http_request *, const char *arg);
route_fn get_storms, get_storm, get_held, get_copy, get_message, get_messages, get_needs,
    post_passed;

/*
 * Routes that are about all nodes (api_fleet.c): the request goes to the other desks (fellows.h)
 * and to ours, and their answers are made one. Without other nodes the route alone answers.
 */
/* How a route's answers are merged. */
enum api_scope {
    API_ALONE, /* of this node only */
    API_STORM,
    API_HELD,
    API_COPY, /* of the node that has it */
    API_TEXT, /* likewise, but its bytes stay there */
    API_MESSAGES,
    API_CHANGE, /* release, discard, undo */
    API_MODE,   /* everywhere, if that is said */
    API_WORD    /* always everywhere */
};
/* true: the request is taken and will be answered. path: below /api/v1/; arg: the route's star. */
bool api_fleet(struct api *, struct http_request *, enum api_scope, const char *path,
               const char *arg);

#endif
