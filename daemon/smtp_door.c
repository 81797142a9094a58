/* smtp_door.c - a list of doors under one lock, each counted. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smtp_door.h"

struct smtp_doors {
    pthread_mutex_t lock;
    struct smtp_door **door;
    size_t n;
    struct clients *clients;
};

void smtp_door_drop(struct smtp_door **dp)
{
    struct smtp_door *d = *dp;
    *dp = NULL;
    if (!d || --d->references)
        return;
    tls_drop(&d->tls);
    tls_drop(&d->down.tls);
    config_drop(&d->config);
    free(d);
}

static int door_tls(struct smtp_door *d, char error[512])
{
    const struct listener *l = d->listener;
    char why[512];
    struct tls_settings ours = {.cert = l->certificate, .key = l->key};
    struct tls_settings theirs = {.ca = l->downstream_ca, .name = l->downstream_name};
    if ((!l->certificate || (d->tls = tls_server_new(&ours, why))) &&
        (l->downstream_tls == TLS_NEVER || (d->down.tls = tls_client_new(&theirs, why))))
        return 0;
    snprintf(error, 512, "smtp %.60s: %.400s", l->name, why);
    return -1;
}

static struct smtp_door *door_new(struct config *config, const struct listener *l, char error[512])
{
    struct smtp_door *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->references = 1;
    d->config = config_hold(config);
    d->listener = l;
    d->down = (struct downstream_settings){
        .to = l->downstream,
        .helo = config->site.node.n ? (const char *)config->site.node.p : "localhost",
        .tls_required = l->downstream_tls == TLS_MUST,
        .proxy_protocol = l->downstream_proxy,
        .xclient = l->xclient,
        .xforward = l->xforward,
        .connect_deadline = config->smtp_connect,
        .command_deadline = config->smtp_command,
        .final_deadline = config->smtp_final,
    };
    if (door_tls(d, error))
        smtp_door_drop(&d);
    return d;
}

static void drop_all(struct smtp_door **door, size_t n)
{
    for (size_t i = 0; i < n; i++)
        smtp_door_drop(&door[i]);
    free(door);
}

/* All doors of a configuration, or NULL and none of them. */
static struct smtp_door **read_doors(struct config *config, size_t *n, char error[512])
{
    struct smtp_door **door = calloc(config->nlisteners + 1, sizeof *door);
    if (!door)
        abort();
    *n = 0;
    for (size_t i = 0; i < config->nlisteners; i++) {
        if (config->listeners[i].kind != DOOR_SMTP)
            continue;
        if (!(door[*n] = door_new(config, &config->listeners[i], error))) {
            drop_all(door, *n);
            return NULL;
        }
        ++*n;
    }
    return door;
}

struct smtp_doors *smtp_doors_new(struct config *config, char error[512])
{
    size_t n;
    struct smtp_door **door = read_doors(config, &n, error);
    if (!door)
        return NULL;
    struct smtp_doors *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    pthread_mutex_init(&all->lock, NULL);
    all->door = door;
    all->n = n;
    all->clients = clients_new(config->smtp_connections, config->smtp_connections_each);
    return all;
}

int smtp_doors_reload(struct smtp_doors *all, struct config *config, char error[512])
{
    size_t n;
    struct smtp_door **fresh = read_doors(config, &n, error);
    if (!fresh)
        return -1;
    pthread_mutex_lock(&all->lock);
    struct smtp_door **old = all->door;
    size_t nold = all->n;
    all->door = fresh;
    all->n = n;
    pthread_mutex_unlock(&all->lock);
    drop_all(old, nold);
    clients_limits(all->clients, config->smtp_connections, config->smtp_connections_each);
    return 0;
}

void smtp_doors_free(struct smtp_doors **all)
{
    if (!*all)
        return;
    drop_all((*all)->door, (*all)->n);
    clients_free(&(*all)->clients);
    pthread_mutex_destroy(&(*all)->lock);
    free(*all);
    *all = NULL;
}

struct smtp_door *smtp_door_take(struct smtp_doors *all, const char *listener)
{
    struct smtp_door *d = NULL;
    pthread_mutex_lock(&all->lock);
    for (size_t i = 0; i < all->n && !d; i++)
        if (strcmp(all->door[i]->listener->name, listener) == 0)
            d = all->door[i];
    if (d)
        d->references++;
    pthread_mutex_unlock(&all->lock);
    return d;
}

struct clients *smtp_doors_clients(struct smtp_doors *all)
{
    return all->clients;
}
