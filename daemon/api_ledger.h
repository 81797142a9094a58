/*
 * api_ledger.h - the routes about refusals, and about what people decided for a while.
 *
 *   GET  refusals?rcpt=&from=&relay=&message_id=&since=&limit=&after=
 *        {"refusals":[..],"next":ID or null}: the latest first; from, rcpt: addresses; relay: the
 *        client's address or name
 *   GET  entries?all=1   {"entries":[..]}: those in force, or also those of the last 400 days
 *   POST entries         {"do":"allow" or "hold","relay" or "sender" or "storm","for":seconds,
 *                         "reason","dry_run"}
 *   POST entries/ID/end  {"reason","dry_run"}
 */
#ifndef API_LEDGER_H
#define API_LEDGER_H

#include "decisions.h"
#include "http.h"
#include "ledger.h"

void api_refusals(struct hold *view, struct http_request *);
/* Those a search for mail is about, as JSON: of the message of the first of these rows of the
 * journal, or, if rows is NULL, of these addresses (NULL: any) since a time (ms). NULL: unreadable.
 */
json_t *api_refusals_of(struct hold *view, const json_t *rows, const char *rcpt, const char *sender,
                        int64_t since);
/* For status. */
json_t *api_ledger_count(struct ledger *);

void api_entries(struct rulebook *, struct hold *view, struct http_request *);
/* The entry and its audit row are committed together; then it is in force, then the answer goes. */
void api_entry_add(struct rulebook *, struct keeper *, struct mailbox *home, uint16_t node,
                   struct http_request *);
void api_entry_end(struct rulebook *, struct keeper *, struct mailbox *home, struct http_request *,
                   const char *id);

#endif
