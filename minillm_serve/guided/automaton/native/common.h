// What every part of the machine uses: short integer names, hashing, hash-consing, errors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace minillm {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i32 = int32_t;
using i64 = int64_t;
using Text = std::string_view;

constexpr u32 NONE = ~0u;
constexpr u32 FAR = 1u << 30;  // a distance that cannot be gone, or that is not known (UNBOUNDED_COST)

inline u32 far_sum(u64 a, u64 b) { return a + b >= FAR ? FAR : u32(a + b); }

// Why a call could not be answered. The values are known to native.py.
enum class Failure : i32 { callback = -2, too_large = -3, memory = -4 };

inline u64 mixed(u64 hash, u64 value) {
    hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
    hash *= 0xff51afd7ed558ccdull;
    return hash ^ (hash >> 32);
}

inline u64 hash_bytes(const void* data, size_t size) {
    const u8* at = static_cast<const u8*>(data);
    u64 hash = size;
    for (; size >= 8; at += 8, size -= 8) {
        u64 word;
        std::memcpy(&word, at, 8);
        hash = mixed(hash, word);
    }
    u64 word = 0;
    std::memcpy(&word, at, size);
    return mixed(hash, word);
}

// Equal values get one number; numbers are given in the order in which values come. Item needs hash() and ==.
template <class Item>
class Interned {
public:
    u32 add(const Item& item) {
        if ((items_.size() + 1) * 2 > slots_.size()) grow();
        u32& slot = find(item);
        if (slot == NONE) {
            slot = u32(items_.size());
            items_.push_back(item);
        }
        return slot;
    }
    const Item& operator[](u32 number) const { return items_[number]; }
    u32 size() const { return u32(items_.size()); }
    size_t nbytes() const { return items_.capacity() * sizeof(Item) + slots_.size() * sizeof(u32); }

private:
    u32& find(const Item& item) {
        size_t mask = slots_.size() - 1, at = item.hash() & mask;
        while (slots_[at] != NONE && !(items_[slots_[at]] == item)) at = (at + 1) & mask;
        return slots_[at];
    }
    void grow() {
        slots_.assign(std::max<size_t>(64, slots_.size() * 2), NONE);
        for (u32 number = 0; number < items_.size(); ++number) {
            size_t mask = slots_.size() - 1, at = items_[number].hash() & mask;
            while (slots_[at] != NONE) at = (at + 1) & mask;
            slots_[at] = number;
        }
    }
    std::vector<Item> items_;
    std::vector<u32> slots_;
};

// Allowed tokens: bit t % 32 of word t // 32.
inline void set_bit(u32* bits, u32 token) { bits[token >> 5] |= 1u << (token & 31); }

inline u32 utf8_length(u8 lead) { return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }

// The code point at the front of well-formed UTF-8.
inline u32 utf8_front(Text text) {
    u32 length = utf8_length(u8(text[0])), code = u8(text[0]);
    if (length > 1) code &= 0x7fu >> length;
    for (u32 i = 1; i < length; ++i) code = code << 6 | (u8(text[i]) & 0x3f);
    return code;
}

inline u32 utf8_put(u32 code, char out[4]) {
    if (code < 0x80) return out[0] = char(code), 1;
    u32 length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (u32 i = length - 1; i > 0; --i, code >>= 6) out[i] = char(0x80 | (code & 0x3f));
    out[0] = char((0xf00 >> length & 0xff) | code);
    return length;
}

}  // namespace minillm
