// The vocabulary: a trie of its tokens in depth-first order (made by vocab.py), and what holds for it in any string.
#pragma once

#include "slices.h"

namespace minillm {

// From one place of a string, whatever the schema: which tokens stay inside, and which close it and go on.
class StringSets {
public:
    struct Exit {
        u32 node, count;  // just behind the closing quote; characters before it
        std::string text;  // those characters, decoded
    };
    struct Entry {
        u32 token, exit;
    };
    // What follows the quote, as a trie: node 0 is the quote itself. entries[first[node]]...: tokens that end here.
    struct Tails {
        std::vector<u8> byte;
        std::vector<u32> depth, skip, first;
        std::vector<Entry> entries;
    };

    StringSets(const Trie& trie, u32 words, u32 start, const Alphabet& alphabet) {
        find(trie, start, alphabet);
        staying_.seal(words);
        index();
    }
    StringSets() = default;  // to be loaded
    void save(Writer& to) const {
        staying_.save(to);
        std::vector<u32> numbers;
        std::vector<u8> texts;
        for (const Exit& exit : exits_) {
            numbers.insert(numbers.end(), {exit.node, exit.count, u32(exit.text.size())});
            texts.insert(texts.end(), exit.text.begin(), exit.text.end());
        }
        to.put(numbers), to.put(texts);
        to.put(tails_.byte), to.put(tails_.depth), to.put(tails_.skip), to.put(tails_.first), to.put(tails_.entries);
    }
    bool load(Reader& from, u32 words) {
        std::vector<u32> numbers;
        std::vector<u8> texts;
        if (!staying_.load(from, words)) return false;
        from.get(numbers), from.get(texts);
        from.get(tails_.byte), from.get(tails_.depth), from.get(tails_.skip), from.get(tails_.first), from.get(tails_.entries);
        size_t at = 0;
        for (size_t exit = 0; exit + 2 < numbers.size(); exit += 3) {
            u32 size = numbers[exit + 2];
            if (at + size > texts.size()) return false;
            exits_.push_back({numbers[exit], numbers[exit + 1], std::string(texts.begin() + at, texts.begin() + at + size)});
            at += size;
        }
        index();
        return from.good();
    }

private:
    void index() {
        for (u32 exit = 0; exit < exits_.size(); ++exit) by_text_.push_back(exit);
        std::sort(by_text_.begin(), by_text_.end(), [&](u32 a, u32 b) { return exits_[a].text < exits_[b].text; });
        most_ = staying_.most();
        for (const Exit& exit : exits_) most_ = std::max(most_, exit.count);
    }

public:

    u32 most() const { return most_; }  // characters of the longest token
    const std::vector<Exit>& exits() const { return exits_; }
    const Tails& tails() const { return tails_; }

    // Tokens that stay in the string, by the characters that they begin.
    const Counted& staying() const { return staying_; }
    u32 exit_at(u32 node) const {
        auto at = std::partition_point(exits_.begin(), exits_.end(), [&](const Exit& exit) { return exit.node < node; });
        return u32(at - exits_.begin());
    }
    // f(exit) for each exit with exactly this text before the quote.
    template <class F>
    void each_with(Text text, F f) const {
        auto at = std::partition_point(by_text_.begin(), by_text_.end(), [&](u32 exit) { return exits_[exit].text < text; });
        for (; at != by_text_.end() && exits_[*at].text == text; ++at) f(*at);
    }

private:
    struct Spelled {
        u32 place, count;
        std::string text;
    };

    void find(const Trie& trie, u32 start, const Alphabet& alphabet) {
        std::vector<Spelled> path{{start, 0, ""}};
        std::vector<std::pair<std::string, Entry>> after;
        for (u32 node = 0; node < trie.nodes;) {
            path.resize(trie.depth[node]);
            const Spelled& before = path.back();
            Decoded found = decode(before.place, trie.byte[node], true);
            bool letter = found.event == Event::letter, middle = found.event == Event::place;
            if (found.event == Event::closed) leave(trie, node, before, after);
            if (found.event == Event::opened) path.push_back({AT_BODY, 0, ""});
            else if (letter) path.push_back({AT_BODY, before.count + 1, before.text + spelled(found.value)});
            else if (middle && !alphabet.runs(found.value, true).empty()) path.push_back({found.value, before.count, before.text});
            else {
                node = u32(trie.skip[node]);
                continue;
            }
            for (i32 at = trie.first[node]; at < trie.first[node + 1]; ++at)
                staying_.add(u32(trie.tokens[at]), path.back().count + middle);
            ++node;
        }
        make_tails(after);
    }
    static std::string spelled(u32 code) {
        char bytes[4];
        return std::string(bytes, utf8_put(code, bytes));
    }
    void leave(const Trie& trie, u32 node, const Spelled& before, std::vector<std::pair<std::string, Entry>>& after) {
        std::string rest;
        for (u32 below = node; below < u32(trie.skip[node]); ++below) {
            if (below > node) {
                rest.resize(trie.depth[below] - trie.depth[node] - 1);
                rest.push_back(char(trie.byte[below]));
            }
            for (i32 at = trie.first[below]; at < trie.first[below + 1]; ++at)
                after.push_back({rest, {u32(trie.tokens[at]), u32(exits_.size())}});
        }
        exits_.push_back({node, before.count, before.text});
    }
    void make_tails(std::vector<std::pair<std::string, Entry>>& after) {
        std::stable_sort(after.begin(), after.end(), [](auto& a, auto& b) { return a.first < b.first; });
        tails_.byte.push_back(0);
        tails_.depth.push_back(0);
        tails_.first.push_back(0);
        std::string before;
        for (auto& [rest, entry] : after) {
            size_t shared = 0;
            while (shared < before.size() && shared < rest.size() && before[shared] == rest[shared]) ++shared;
            for (size_t at = shared; at < rest.size(); ++at) {
                tails_.byte.push_back(u8(rest[at]));
                tails_.depth.push_back(u32(at + 1));
                tails_.first.push_back(u32(tails_.entries.size()));
            }
            tails_.entries.push_back(entry);
            before = rest;
        }
        u32 nodes = u32(tails_.byte.size());
        tails_.first.push_back(u32(tails_.entries.size()));
        tails_.skip.assign(nodes, nodes);
        std::vector<u32> open;
        for (u32 node = 0; node < nodes; ++node) {
            for (; !open.empty() && tails_.depth[open.back()] >= tails_.depth[node]; open.pop_back()) tails_.skip[open.back()] = node;
            open.push_back(node);
        }
    }

    u32 most_;
    Counted staying_;
    std::vector<Exit> exits_;
    std::vector<u32> by_text_;
    Tails tails_;
};

// Shared by all machines over one vocabulary. The arrays of the trie belong to the caller and must live as long.
class Vocab {
public:
    // joined, offsets: the bytes of token t are joined[offsets[t]] up to joined[offsets[t + 1]].
    Vocab(Trie trie, u32 size, const u8* alphabet, const char* joined, const i32* offsets, std::vector<u32> eos)
        : trie_(trie), size_(size), joined_(joined), offsets_(offsets), eos_(std::move(eos)) {
        std::copy(alphabet, alphabet + 256, present_);
        std::fill(top_, top_ + 256, NONE);
        for (u32 node = 0; node < trie.nodes; node = u32(trie.skip[node])) top_[trie.byte[node]] = node;
        for (u32 number = 0; number < size; ++number)
            if (token(number).find('\\') != Text::npos) escaping_.push_back(number);
    }
    const Trie& trie() const { return trie_; }
    u32 words() const { return (size_ + 31) / 32; }
    const u8* present() const { return present_; }
    const std::vector<u32>& eos() const { return eos_; }
    u32 top(u8 byte) const { return top_[byte]; }  // the node of a first byte, NONE if no token begins with it
    u32 child(u32 node, u8 byte) const {
        for (u32 below = node + 1; below < u32(trie_.skip[node]); below = u32(trie_.skip[below]))
            if (trie_.byte[below] == byte) return below;
        return NONE;
    }
    const std::vector<u32>& escaping() const { return escaping_; }  // tokens with a backslash in them

    const StringSets& sets(bool from_open) const { return *sets_[from_open]; }
    const Slice& slice(u32 number) const { return *slices_[number]; }

    // What holds in any string: made once for a vocabulary, before any machine runs.
    void prepare() {
        for (bool from_open : {false, true})
            sets_[from_open] = std::make_unique<StringSets>(trie_, words(), from_open ? AT_OPEN : AT_BODY, Alphabet(present_));
        for (u32 number = 0; number < Slice::COUNT; ++number) slices_[number] = std::make_unique<Slice>(trie_, words(), number);
    }
    std::vector<u8> saved() const {
        Writer to;
        to.put(fingerprint());
        for (const auto& sets : sets_) sets->save(to);
        for (const auto& slice : slices_) slice->save(to);
        return to.done();
    }
    // False, and nothing is prepared, if this is not what saved() has returned for the same vocabulary.
    bool load(const u8* data, size_t size) {
        Reader from(data, size);
        u64 found = 0;
        from.get(found);
        bool good = from.good() && found == fingerprint();
        for (auto& sets : sets_) {
            sets = std::make_unique<StringSets>();
            good = good && sets->load(from, words());
        }
        for (u32 number = 0; number < Slice::COUNT; ++number) {
            slices_[number] = std::make_unique<Slice>(number);
            good = good && slices_[number]->load(from, words());
        }
        return good && from.finished();
    }
    Text token(u32 number) const {
        return Text(joined_ + offsets_[number], size_t(offsets_[number + 1] - offsets_[number]));
    }

private:
    static constexpr u64 VERSION = 1;  // of what is saved

    u64 fingerprint() const {
        u64 sum = mixed(VERSION, hash_bytes(present_, sizeof present_));
        sum = mixed(sum, hash_bytes(joined_, size_t(offsets_[size_])));
        return mixed(sum, hash_bytes(offsets_, (size_t(size_) + 1) * sizeof *offsets_));
    }

    Trie trie_;
    u32 size_;
    const char* joined_;
    const i32* offsets_;
    std::vector<u32> eos_, escaping_;
    u8 present_[256];
    u32 top_[256];
    std::unique_ptr<StringSets> sets_[2];
    std::unique_ptr<Slice> slices_[Slice::COUNT];
};

}  // namespace minillm
