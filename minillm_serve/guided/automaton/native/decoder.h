// How characters are spelled: well-formed UTF-8 (Unicode 16, table 3-7), and in a JSON string its escapes (RFC 8259).
//
// A place is where a text stands in the spelling of one character: kind, a count n, and the bits known so far.
#pragma once

#include "common.h"

namespace minillm {

enum Kind : u32 { OPEN, BODY, ESCAPE, TAIL, HEX, PAIR_SLASH, PAIR_U, PAIR_HEX };

constexpr u32 place_of(u32 kind, u32 n = 0, u32 value = 0) { return kind << 28 | n << 24 | value; }
constexpr u32 AT_OPEN = place_of(OPEN), AT_BODY = place_of(BODY), AT_ESCAPE = place_of(ESCAPE);
inline u32 kind_of(u32 place) { return place >> 28; }
inline u32 count_of(u32 place) { return place >> 24 & 15; }
inline u32 value_of(u32 place) { return place & 0xffffff; }

enum class Event : u8 { dead, opened, closed, letter, place };

// What one byte does: a letter has been read (value is its code point), the place is now another one (value), ...
struct Decoded {
    Event event;
    u32 value;
};

constexpr Decoded DEAD_END{Event::dead, 0};
constexpr u8 SHORT_NAMES[] = {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'};
constexpr u8 SHORT_CODES[] = {'"', '\\', '/', 8, 12, 10, 13, 9};

inline int hex_digit(u8 byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

inline Decoded lead_byte(u8 byte) {
    if (byte >= 0xc2 && byte <= 0xdf) return {Event::place, place_of(TAIL, 1, byte & 31u)};
    if (byte >= 0xe0 && byte <= 0xef) return {Event::place, place_of(TAIL, 2, byte & 15u)};
    if (byte >= 0xf0 && byte <= 0xf4) return {Event::place, place_of(TAIL, 3, byte & 7u)};
    return DEAD_END;
}

// n: tails still to come. Overlong forms, surrogates and what lies beyond U+10FFFF end here.
inline Decoded tail_byte(u32 n, u32 value, u8 byte) {
    if ((byte & 0xc0) != 0x80) return DEAD_END;
    value = value << 6 | (byte & 0x3f);
    if (n == 1) return {Event::letter, value};
    if (n == 2 && (value < 0x20 || (value >= 0x360 && value < 0x380))) return DEAD_END;
    if (n == 3 && (value < 0x10 || value > 0x10f)) return DEAD_END;
    return {Event::place, place_of(TAIL, n - 1, value)};
}

// n: digits read. A lone low surrogate has no way on; a high one must be followed by an escaped low one.
inline Decoded hex_byte(u32 n, u32 value, u8 byte) {
    int digit = hex_digit(byte);
    if (digit < 0) return DEAD_END;
    value = value << 4 | u32(digit);
    if (n == 1 && value >= 0xdc) return value <= 0xdf ? DEAD_END : Decoded{Event::place, place_of(HEX, 2, value)};
    if (n < 3) return {Event::place, place_of(HEX, n + 1, value)};
    if (value >= 0xd800 && value < 0xdc00) return {Event::place, place_of(PAIR_SLASH, 0, value - 0xd800)};
    return {Event::letter, value};
}

// value: the ten bits of the high surrogate, then the digits of the low one.
inline Decoded pair_byte(u32 n, u32 value, u8 byte) {
    int digit = hex_digit(byte);
    if (digit < 0 || (n == 0 && digit != 13) || (n == 1 && digit < 12)) return DEAD_END;
    value = n < 2 ? (n == 0 ? value : value << 2 | u32(digit - 12)) : value << 4 | u32(digit);
    if (n < 3) return {Event::place, place_of(PAIR_HEX, n + 1, value)};
    return {Event::letter, 0x10000 + value};
}

inline Decoded escape_byte(u8 byte) {
    if (byte == 'u') return {Event::place, place_of(HEX)};
    for (int i = 0; i < 8; ++i)
        if (SHORT_NAMES[i] == byte) return {Event::letter, SHORT_CODES[i]};
    return DEAD_END;
}

inline Decoded decode(u32 place, u8 byte, bool quoted) {
    switch (kind_of(place)) {
        case OPEN: return byte == '"' ? Decoded{Event::opened, AT_BODY} : DEAD_END;
        case BODY:
            if (byte >= 0x80) return lead_byte(byte);
            if (!quoted) return {Event::letter, byte};
            if (byte == '"') return {Event::closed, 0};
            if (byte == '\\') return {Event::place, AT_ESCAPE};
            return byte < 0x20 ? DEAD_END : Decoded{Event::letter, byte};
        case ESCAPE: return escape_byte(byte);
        case TAIL: return tail_byte(count_of(place), value_of(place), byte);
        case HEX: return hex_byte(count_of(place), value_of(place), byte);
        case PAIR_SLASH: return byte == '\\' ? Decoded{Event::place, place_of(PAIR_U, 0, value_of(place))} : DEAD_END;
        case PAIR_U: return byte == 'u' ? Decoded{Event::place, place_of(PAIR_HEX, 0, value_of(place))} : DEAD_END;
        default: return pair_byte(count_of(place), value_of(place), byte);
    }
}

}  // namespace minillm
