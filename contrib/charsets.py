#!/usr/bin/python3
"""charsets.py - writes detectors/charset_table.c: what bytes mean in the charsets of mail, as Python's codecs know it.

    python3 contrib/charsets.py > detectors/charset_table.c
"""
import sys

# In the order of enum charset in detectors/charset.h, from CHARSET_SINGLE on.
SINGLE = ["cp1252", "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9",
          "iso8859_10", "iso8859_13", "iso8859_14", "iso8859_15", "iso8859_16", "cp874", "cp1250", "cp1251", "cp1253", "cp1254",
          "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r", "koi8_u", "cp437", "cp850", "cp852", "cp866", "mac_roman"]
UNDEFINED = 0xfffd


def point(codec, *octets):
    try:
        text = bytes(octets).decode(codec)
    except UnicodeDecodeError:
        return UNDEFINED
    return ord(text) if len(text) == 1 and ord(text) < 0x10000 else UNDEFINED


def spans(*pairs):
    return [b for first, last in pairs for b in range(first, last + 1)]


# name, codec, lead bytes, trail bytes
DOUBLE = [
    ("charset_gbk", "gb18030", spans((0x81, 0xfe)), spans((0x40, 0x7e), (0x80, 0xfe))),
    ("charset_jis", "cp932", spans((0x81, 0x9f), (0xe0, 0xfc)), spans((0x40, 0x7e), (0x80, 0xfc))),
    ("charset_uhc", "cp949", spans((0x81, 0xfe)), spans((0x41, 0x5a), (0x61, 0x7a), (0x81, 0xfe))),
    ("charset_big5", "cp950", spans((0xa1, 0xf9)), spans((0x40, 0x7e), (0xa1, 0xfe))),
]


def gb_ranges():
    """GB 18030's four-byte codes below U+10000 count through what is left; (number, code point) where a stretch begins."""
    out, expected = [], None
    for c in list(range(0x80, 0xd800)) + list(range(0xe000, 0x10000)):
        b = chr(c).encode("gb18030")
        if len(b) != 4:
            continue
        number = ((b[0] - 0x81) * 10 + b[1] - 0x30) * 1260 + (b[2] - 0x81) * 10 + b[3] - 0x30
        if expected != number - c:
            out.append((number, c))
        expected = number - c
    return out


def rows(values, indent):
    text, line = "", indent
    for v in values:
        word = "0x%x," % v
        if len(line) + len(word) > 100:
            text += line + "\n"
            line = indent
        line += word
    return text + line + "\n"


def generate():
    out = ["/*\n * charset_table.c - what bytes mean in the charsets of mail. Not to be edited; made by\n"
           " *     python3 contrib/charsets.py > detectors/charset_table.c\n */\n"
           "/* clang-format off */\n#include \"charset_table.h\"\n\n"]
    out.append("const uint16_t charset_single[%d][128] = {\n" % len(SINGLE))
    for codec in SINGLE:
        out.append("{ /* %s */\n%s},\n" % (codec, rows([point(codec, b) for b in range(0x80, 0x100)], "")))
    out.append("};\n")
    for name, codec, leads, trails in DOUBLE:
        out.append("\n/* %s */\nconst uint16_t %s[%d][%d] = {\n" % (codec, name, len(leads), len(trails)))
        for lead in leads:
            values = [point(codec, lead, trail) for trail in trails]
            out.append("{\n%s},\n" % rows(values, ""))
        out.append("};\n")
    ranges = gb_ranges()
    out.append("\nconst struct charset_range charset_gb_ranges[%d] = {\n" % len(ranges))
    out += ["{%d,0x%x},\n" % r for r in ranges]
    out.append("};\n")
    return "".join(out)


if __name__ == "__main__":
    sys.stdout.write(generate())
