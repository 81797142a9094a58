/*
 * html.h - the text a person sees of an HTML part, for fingerprinting only; nothing is rendered.
 *
 * Tags separate words; comments, script, style, head and title are left out; character references
 * are decoded. Pieces of any size; linear; never fails.
 */
#ifndef HTML_H
#define HTML_H

#include "words.h"

enum html_state {
    HTML_TEXT,
    HTML_LESS,      /* after < */
    HTML_NAME,      /* in the name of a tag */
    HTML_TAG,       /* behind it */
    HTML_QUOTED,    /* in a quoted attribute value */
    HTML_BANG,      /* after <!, perhaps a comment */
    HTML_COMMENT,   /* between <!-- and --> */
    HTML_REFERENCE, /* after & */
};

struct html {
    struct words *words;
    enum charset charset; /* not UTF-16 */
    struct charset_state decoder;
    enum html_state state;
    uint8_t skip;   /* inside an element that is left out: its number; 0: none */
    uint8_t quote;  /* the quote that ends an attribute value */
    uint8_t equals; /* the last byte of a tag that was no blank was = */
    uint8_t dashes; /* seen of --, in <!-- and in --> */
    uint8_t n;
    uint8_t name[12]; /* of a tag or reference, as much as fits */
};

void html_begin(struct html *, struct words *, enum charset);
void html_add(struct html *, struct span);
void html_end(struct html *);

#endif
