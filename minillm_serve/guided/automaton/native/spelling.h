// Which code points can be completed from a place by single-byte tokens, and in how many bytes.
#pragma once

#include "decoder.h"

namespace minillm {

constexpr u32 MAX_SPELLING = 13;  // \uD83D\uDE00 takes twelve bytes

// Each code point from low to high still needs `cost` bytes.
struct Run {
    u32 low, high, cost;
};
using Runs = std::vector<Run>;

class Alphabet {
public:
    explicit Alphabet(const u8* present) {
        std::copy(present, present + 256, has_);
        for (u32 byte = 0x80; byte < 0xc0; ++byte) regular_ &= has_[byte];
        for (int digit = 0; digit < 16; ++digit)
            digits_[digit] = has_[u8("0123456789abcdef"[digit])] || has_[u8("0123456789ABCDEF"[digit])];
        for (bool digit : digits_) regular_ &= digit;
    }
    bool has(u8 byte) const { return has_[byte]; }

    // Remembered for each place, for it is asked for at every step in the middle of a character.
    const Runs& runs(u32 place, bool quoted) const {
        auto [at, is_new] = known_[quoted].try_emplace(place);
        if (is_new) at->second = find_runs(place, quoted);
        return at->second;
    }

    // Bytes that complete `code` from `place`, FAR if it cannot be done; code is one that the place can become.
    u32 cost(u32 place, bool quoted, u32 code) const {
        u32 n = count_of(place);
        switch (kind_of(place)) {
            case BODY: return body_cost(code, quoted);
            case ESCAPE: return escape_cost(code);
            case TAIL: return tail_cost(code, n);
            case HEX: return hex_cost(code, n);
            case PAIR_SLASH: return has_['\\'] && has_['u'] ? far_sum(2, low_cost(code, 0)) : FAR;
            case PAIR_U: return has_['u'] ? far_sum(1, low_cost(code, 0)) : FAR;
            default: return low_cost(code, n);
        }
    }

private:
    u32 tail_cost(u32 code, u32 n) const {
        for (u32 i = 0; i < n; ++i)
            if (!has_[0x80 | (code >> 6 * i & 0x3f)]) return FAR;
        return n;
    }
    u32 digits_cost(u32 unit, u32 n) const {
        for (u32 i = n; i < 4; ++i)
            if (!digits_[unit >> 4 * (3 - i) & 15]) return FAR;
        return 4 - n;
    }
    u32 low_cost(u32 code, u32 n) const { return digits_cost(0xdc00 | ((code - 0x10000) & 0x3ff), n); }
    u32 hex_cost(u32 code, u32 n) const {
        if (code < 0x10000) return digits_cost(code, n);
        if (!has_['\\'] || !has_['u']) return FAR;
        return far_sum(u64(digits_cost(0xd800 | (code - 0x10000) >> 10, n)) + 2, low_cost(code, 0));
    }
    u32 escape_cost(u32 code) const {
        for (int i = 0; i < 8; ++i)
            if (SHORT_CODES[i] == code && has_[SHORT_NAMES[i]]) return 1;
        return has_['u'] ? far_sum(1, hex_cost(code, 0)) : FAR;
    }
    u32 body_cost(u32 code, bool quoted) const {
        char bytes[4];
        u32 length = utf8_put(code, bytes);
        bool raw = !quoted || (code >= 0x20 && code != '"' && code != '\\');
        for (u32 i = 0; i < length; ++i) raw &= has_[u8(bytes[i])];
        u32 escaped = quoted && has_['\\'] ? far_sum(1, escape_cost(code)) : FAR;
        return std::min(raw ? length : FAR, escaped);
    }

    static std::vector<std::pair<u32, u32>> ranges(u32 place) {
        u32 n = count_of(place), value = value_of(place);
        if (kind_of(place) == BODY || kind_of(place) == ESCAPE) return {{0, 0xd7ff}, {0xe000, 0x10ffff}};
        if (kind_of(place) == TAIL) {
            u32 low = value << 6 * n, high = ((value + 1) << 6 * n) - 1;
            if (n == 2 && value < 16) return {{std::max(low, 0x800u), value == 13 ? 0xd7ff : high}};
            if (n == 3) return {{std::max(low, 0x10000u), std::min(high, 0x10ffffu)}};
            return {{low, high}};
        }
        if (kind_of(place) != HEX) {
            u32 bits = kind_of(place) != PAIR_HEX || n < 2 ? 10 : n == 2 ? 8 : 4;
            return {{0x10000 + (value << bits), 0x10000 + ((value + 1) << bits) - 1}};
        }
        u32 low = value << 4 * (4 - n), high = ((value + 1) << 4 * (4 - n)) - 1;
        std::vector<std::pair<u32, u32>> found;
        if (low < 0xd800) found.push_back({low, std::min(high, 0xd7ffu)});
        if (high >= 0xe000) found.push_back({std::max(low, 0xe000u), high});
        u32 first = std::max(low, 0xd800u), last = std::min(high, 0xdbffu);
        if (first <= last) found.push_back({0x10000 + ((first - 0xd800) << 10), 0x10000 + ((last - 0xd7ff) << 10) - 1});
        return found;
    }

    // The first code point after `code` that may be spelled otherwise.
    u32 next_break(u32 code) const {
        if (code < 0x80 || !regular_) return code + 1;
        u32 step = code < 0x800 ? 0x40 : code < 0x10000 ? 0x1000 : 0x40000;
        return code < 0xd800 ? std::min((code / step + 1) * step, 0xd800u) : (code / step + 1) * step;
    }

    Runs find_runs(u32 place, bool quoted) const {
        Runs found;
        for (auto [low, high] : ranges(place)) {
            for (u32 code = low; code <= high;) {
                u32 last = std::min(next_break(code) - 1, high), price = cost(place, quoted, code);
                if (price < FAR) {
                    bool joins = !found.empty() && found.back().high + 1 == code && found.back().cost == price;
                    if (joins) found.back().high = last;
                    else found.push_back({code, last, price});
                }
                code = last + 1;
            }
        }
        return found;
    }

    bool has_[256], digits_[16], regular_ = true;  // regular: every tail byte and every digit can be written
    mutable std::unordered_map<u32, Runs> known_[2];
};

}  // namespace minillm
