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
route_fn get_storms, get_storm, get_held, get_copy, get_message, get_messages;

#endif
