/*
 * sitekey.h - the file with the secret all hashes are keyed with: 64 hex digits, or 32 bytes.
 *
 * Not readable for everybody; complete or not there.
 */
#ifndef SITEKEY_H
#define SITEKEY_H

#include "span.h"

enum { SITEKEY_BYTES = 32, SITEKEY_ERROR = 256 };

/* 0; 1 if there is no such file; -1 after a sentence in error. */
int sitekey_read(const char *path, uint8_t key[SITEKEY_BYTES], char error[SITEKEY_ERROR]) MUSTCHECK;
/* Makes a new key and its file, 0600. -1 after a sentence in error; a file that is there stays. */
int sitekey_make(const char *path, uint8_t key[SITEKEY_BYTES], char error[SITEKEY_ERROR]) MUSTCHECK;

#endif
