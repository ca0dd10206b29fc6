// Slices of the vocabulary: tokens made of unremarkable characters only. Where an automaton of characters accepts so
// many of those in any order, a slice is allowed as a whole and just the rest of the vocabulary has to be read.
// (Moskal 2025 describes the idea for llguidance.)
#pragma once

#include <mutex>

#include "archive.h"
#include "spelling.h"

namespace minillm {

// Nodes in depth-first order. byte: the edge into a node; depth: 1 for a first byte; skip: the next node outside the
// subtree; tokens[first[node]] up to tokens[first[node + 1]] end at the node.
struct Trie {
    u32 nodes;
    const u8* byte;
    const i32 *depth, *skip, *first, *tokens;
};

// Tokens that begin so many characters, and masks of those that begin no more than some number.
class Counted {
public:
    void add(u32 token, u32 count) {
        tokens_.push_back({count, token});
        most_ = std::max(most_, count);
    }
    void seal(u32 words) {
        std::sort(tokens_.begin(), tokens_.end());
        words_ = words;
        masks_.resize(most_ + 1);
    }
    void save(Writer& to) const { to.put(tokens_); }
    // Tokens beyond `words` masks' worth would be written outside of them: the reader is no longer good then.
    bool load(Reader& from, u32 words) {
        from.get(tokens_);
        for (const Begun& token : tokens_) {
            if (token.token >= words * 32) return false;
            most_ = std::max(most_, token.count);
        }
        seal(words);
        return from.good();
    }
    u32 most() const { return most_; }
    const u32* mask(u32 count) const {
        count = std::min(count, most_);
        std::lock_guard<std::mutex> guard(lock_);
        if (masks_[count].empty()) {
            masks_[count].assign(words_, 0);
            for (const Begun& token : tokens_) {
                if (token.count > count) break;
                set_bit(masks_[count].data(), token.token);
            }
        }
        return masks_[count].data();
    }

private:
    struct Begun {
        u32 count, token;
        bool operator<(const Begun& b) const { return std::tie(count, token) < std::tie(b.count, b.token); }
    };
    std::vector<Begun> tokens_;
    u32 most_ = 0, words_ = 0;
    mutable std::vector<std::vector<u32>> masks_;
    mutable std::mutex lock_;
};

class Slice {
public:
    // Lower case, letters and digits, these with spaces, printable ASCII without and with spaces, and with what is
    // beyond ASCII: the last that an automaton accepts leaves the least to be read.
    enum : u32 { LOWER, WORD, WORDS, GRAPHIC, PRINTABLE, ANY, COUNT };

    Slice(const Trie& trie, u32 words, u32 number) : number_(number) {
        std::vector<u8> apart(trie.nodes + 1, 0);  // nodes of tokens that are not in the slice, and what leads to them
        std::vector<std::pair<u32, u32>> path{{AT_BODY, 0}};
        for (u32 node = 0; node < trie.nodes;) {
            path.resize(trie.depth[node]);
            auto [place, count] = path.back();
            Decoded found = decode(place, trie.byte[node], true);
            bool middle = found.event == Event::place && kind_of(found.value) == TAIL && number_ == ANY;
            if (middle) path.push_back({found.value, count});
            else if (found.event == Event::letter && holds(found.value)) path.push_back({AT_BODY, count + 1});
            else {
                std::fill(apart.begin() + node, apart.begin() + trie.skip[node], u8(1));
                node = u32(trie.skip[node]);
                continue;
            }
            for (i32 at = trie.first[node]; at < trie.first[node + 1]; ++at) inside_.add(u32(trie.tokens[at]), path.back().second + middle);
            ++node;
        }
        inside_.seal(words);
        keep_rest(trie, apart);
    }

    explicit Slice(u32 number) : number_(number) {}  // to be loaded
    void save(Writer& to) const {
        inside_.save(to);
        to.put(byte_), to.put(depth_), to.put(skip_), to.put(first_), to.put(tokens_), to.put(numbers_);
    }
    bool load(Reader& from, u32 words) {
        if (!inside_.load(from, words)) return false;
        from.get(byte_), from.get(depth_), from.get(skip_), from.get(first_), from.get(tokens_), from.get(numbers_);
        return from.good();
    }

    const Counted& inside() const { return inside_; }
    // The other tokens; number(node): the node in the whole vocabulary's trie.
    Trie rest() const { return {u32(byte_.size()), byte_.data(), depth_.data(), skip_.data(), first_.data(), tokens_.data()}; }
    u32 number(u32 node) const { return numbers_[node]; }

    bool holds(u32 code) const {
        if (code >= 0x80) return number_ == ANY && !is_space(code, code);
        bool lower = code >= 'a' && code <= 'z', letter = lower || (code >= 'A' && code <= 'Z') || (code >= '0' && code <= '9');
        if (number_ <= WORDS) return number_ == LOWER ? lower : letter || (number_ == WORDS && code == ' ');
        return code >= (number_ == GRAPHIC ? 0x21u : 0x20u) && code < 0x7f && code != '"' && code != '\\';
    }
    // Does it hold some code point from low, which is beyond ASCII, up to high?
    bool meets(u32 low, u32 high) const { return number_ == ANY && !is_space(low, high); }

private:
    // What some dialect of regular expressions counts as white space or as the end of a line; and surrogates.
    static bool is_space(u32 low, u32 high) {
        static constexpr u32 RANGES[][2] = {{0x85, 0x85}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x180e, 0x180e},
                                            {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                                            {0x3000, 0x3000}, {0xd800, 0xdfff}, {0xfeff, 0xfeff}};
        for (auto [first, last] : RANGES)
            if (first <= low && high <= last) return true;
        return false;
    }
    void keep_rest(const Trie& trie, std::vector<u8>& apart) {
        std::vector<u32> path;
        for (u32 node = 0; node < trie.nodes; ++node) {
            path.resize(trie.depth[node] - 1);
            if (apart[node])
                for (u32 above = u32(path.size()); above-- > 0 && !apart[path[above]];) apart[path[above]] = 2;
            path.push_back(node);
        }
        std::vector<i32> moved(trie.nodes + 1);
        for (u32 node = 0; node <= trie.nodes; ++node) {
            moved[node] = i32(byte_.size());
            if (node == trie.nodes || !apart[node]) continue;
            byte_.push_back(trie.byte[node]);
            depth_.push_back(trie.depth[node]);
            skip_.push_back(trie.skip[node]);
            numbers_.push_back(node);
            first_.push_back(i32(tokens_.size()));
            if (apart[node] == 1) tokens_.insert(tokens_.end(), trie.tokens + trie.first[node], trie.tokens + trie.first[node + 1]);
        }
        first_.push_back(i32(tokens_.size()));
        for (i32& skip : skip_) skip = moved[skip];
    }

    u32 number_;
    Counted inside_;
    std::vector<u8> byte_;
    std::vector<i32> depth_, skip_, first_, tokens_;
    std::vector<u32> numbers_;
};

}  // namespace minillm
