// Token masks: which tokens lead from a position to another one.
//
// Leaves that allow few bytes are walked against the trie. Inside a string nearly every token is possible: tokens that
// stay inside depend on the leaf alone and come as ready-made sets; only those that close it depend on the stack.
#pragma once

#include "positions.h"
#include "vocab.h"

namespace minillm {

class Machine : public Positions {
public:
    Machine(const Vocab& vocab, u32 max_depth, Expand expand, Cost cost, size_t limit)
        : Positions(alphabet_, max_depth, expand, cost, limit), alphabet_(vocab.present()), vocab_(vocab) {}

    const Alphabet& alphabet() const { return alphabet_; }

    void fill(u32 position, u32* out) {
        Position& at = this->at(position);
        size_t words = vocab_.words();
        if (!at.mask.empty()) {
            at.used = tick();
            std::memcpy(out, at.mask.data(), words * 4);
            return;
        }
        work_ = 0;
        std::memset(out, 0, words * 4);
        if (pruned_ || at.threads.size() > MAX_APART || !fill_apart(at.threads, out)) {
            std::memset(out, 0, words * 4);
            walk_all(at.threads, [&](u32 token) { set_bit(out, token); });
        }
        if (at.complete) set_ends(out);
        if (work_ >= WORTH_KEEPING || this->at(position).used) keep_mask(position, out, words);
        this->at(position).used = tick();
    }

    // Only tokens after which no more than `budget` bytes are needed.
    void fill_within(u32 position, u32 budget, u32* out) {
        std::memset(out, 0, vocab_.words() * 4);
        Threads start{at(position).threads};
        walk_trie(start, [&](u32 node, const Threads& threads) {
            i32 first = vocab_.trie().first[node], end = vocab_.trie().first[node + 1];
            if (first == end || (!threads.complete && cost_of(threads.items) > budget)) return;
            for (; first < end; ++first) set_bit(out, u32(vocab_.trie().tokens[first]));
        });
        if (at(position).complete) set_ends(out);
    }
    size_t nbytes() const { return Positions::nbytes() + set_bytes_; }

private:
    static constexpr size_t MAX_APART = 256, WORTH_KEEPING = 64, MAX_DEPTH = 64;

    // A string leaf at one place: tokens that stay inside, and the tag with which each exit is possible (-1: not).
    struct LeafSet {
        std::vector<u32> mask;
        std::vector<i32> tags;  // by exit
        std::vector<i32> kinds;  // the tags that occur
    };
    struct SetKey {
        u32 leaf, place, state, needed, room;
        bool operator==(const SetKey& b) const { return std::memcmp(this, &b, sizeof b) == 0; }
    };
    struct HashKey {
        size_t operator()(const SetKey& key) const { return hash_bytes(&key, sizeof key); }
    };

    void set_ends(u32* out) const {
        for (u32 token : vocab_.eos()) set_bit(out, token);
    }

    // Each thread inside a string by itself, the rest together. False if together they might have been too many.
    bool fill_apart(const std::vector<Thread>& threads, u32* out) {
        Threads rest;
        size_t together = 0;
        for (const Thread& thread : threads) {
            peak_ = 0;
            if (!fill_string(thread, out)) rest.items.push_back(thread);
            together += peak_;
        }
        peak_ = 0;
        walk_all(rest.items, [&](u32 token) { set_bit(out, token); });
        return !pruned_ && together + peak_ <= MAX_THREADS;
    }

    template <class F>
    void walk_all(const std::vector<Thread>& threads, F f) {
        const Trie& trie = vocab_.trie();
        if (threads.empty()) return;
        walk_trie(Threads{threads}, [&](u32 node, const Threads&) {
            for (i32 at = trie.first[node]; at < trie.first[node + 1]; ++at) f(u32(trie.tokens[at]));
        });
    }
    // f(node, threads) for each node whose bytes the threads can read.
    template <class F>
    void walk_trie(const Threads& start, F f) {
        const Trie& trie = vocab_.trie();
        bool bytes[256] = {};
        for (const Thread& thread : start.items) first_bytes(thread, bytes);
        for (u32 byte = 0; byte < 256; ++byte)
            if (bytes[byte] && vocab_.top(u8(byte)) != NONE) {
                u32 top = vocab_.top(u8(byte));
                walk(start, trie.byte, trie.depth, trie.skip, top, u32(trie.skip[top]), f);
            }
    }
    // The same over the nodes in [node, end) of any trie.
    template <class Depth, class F>
    void walk(const Threads& start, const u8* byte, const Depth* depth, const Depth* skip, u32 node, u32 end, F f) {
        if (node >= end) return;
        u32 base = u32(depth[node]);
        while (node < end) {
            u32 level = u32(depth[node]) - base;
            if (levels_.size() <= level + 1) levels_.resize(level + 2);
            const Threads& from = level ? levels_[level] : start;
            Threads& to = levels_[level + 1];
            step(from.items, byte[node], to);
            ++work_;
            peak_ = std::max(peak_, to.items.size());
            if (to.empty()) {
                node = u32(skip[node]);
                continue;
            }
            f(node, to);
            node = to.items.empty() ? u32(skip[node]) : node + 1;
        }
    }
    void first_bytes(const Thread& thread, bool* bytes) {
        const Leaf& leaf = leaf_of(thread.read);
        if (leaf.bytes) {
            for (u32 edge = leaf.bytes->edges_begin(thread.at.place); edge < leaf.bytes->edges_end(thread.at.place); ++edge)
                bytes[leaf.bytes->edge_byte(edge)] = true;
        } else if (thread.at.place == AT_OPEN) {
            bytes[u8('"')] = true;
        } else {
            std::fill(bytes, bytes + 256, true);
        }
    }

    // -- strings ---------------------------------------------------------------------------------------------------

    // Adds the tokens of a thread inside a string; false if they have to be walked.
    bool fill_string(const Thread& thread, u32* out) {
        const Leaf& leaf = leaf_of(thread.read);
        if (!leaf.text || !leaf.text->quoted() || (thread.at.place != AT_BODY && thread.at.place != AT_OPEN)) return false;
        const StringSets& sets = vocab_.sets(thread.at.place == AT_OPEN);
        const TextLeaf& text = *leaf.text;
        u32 needed = text.low() - std::min(thread.at.count, text.low());
        u32 room = text.high() == NONE ? NONE : text.high() - thread.at.count;
        Rests rests = forbidden(thread);
        std::vector<u32> banned;
        for (Text rest : rests) sets.each_with(rest, [&](u32 exit) { banned.push_back(exit); });
        auto is_banned = [&](u32 exit) { return std::find(banned.begin(), banned.end(), exit) != banned.end(); };
        if (!text.is_any()) {
            const LeafSet& set = leaf_set(thread, sets, needed, room);
            merge_around(thread, set.mask.data(), rests, out);
            for (i32 tag : set.kinds)
                leave(thread, sets, u32(tag), out, [&](u32 exit) { return set.tags[exit] == tag && !is_banned(exit); });
            return true;
        }
        bool is_near = room <= sets.most() + 1;  // forbidden texts may then take the last way to an end
        merge_around(thread, sets.staying().mask(room), is_near ? rests : Rests(), out);
        if (needed > sets.most()) return true;
        leave(thread, sets, 0, out, [&](u32 exit) {
            u32 count = sets.exits()[exit].count;
            return count >= needed && count <= room && !is_banned(exit);
        });
        return true;
    }
    // Adds `mask`, less what the forbidden rests take away: only tokens that begin like one of them can be concerned.
    void merge_around(const Thread& thread, const u32* mask, const Rests& rests, u32* out) {
        if (rests.empty()) return merge(out, mask);
        mask_.assign(mask, mask + vocab_.words());
        auto check = [&](u32 token) {
            u32& word = mask_[token >> 5];
            if ((word >> (token & 31) & 1) && !can_read(thread, vocab_.token(token))) word &= ~(1u << (token & 31));
        };
        for (u32 token : vocab_.escaping()) check(token);
        const Trie& trie = vocab_.trie();
        for (Text rest : rests) {
            std::string path = (thread.at.place == AT_OPEN ? "\"" : "") + std::string(rest);
            u32 node = path.empty() ? NONE : vocab_.top(u8(path[0]));
            for (size_t at = 1; node != NONE; ++at) {
                for (i32 token = trie.first[node]; token < trie.first[node + 1]; ++token) check(u32(trie.tokens[token]));
                node = at < path.size() ? vocab_.child(node, u8(path[at])) : NONE;
            }
        }
        merge(out, mask_.data());
    }
    void merge(u32* out, const u32* mask) const {
        for (u32 word = 0; word < vocab_.words(); ++word) out[word] |= mask[word];
    }

    // Adds the tokens that close the string, by an exit that may be taken, and go on behind it. What a unique arc adds
    // to its frame differs from exit to exit: where that is asked for, each token is tried by itself.
    template <class May>
    void leave(const Thread& thread, const StringSets& sets, u32 tag, u32* out, May may) {
        const StringSets::Tails& tails = sets.tails();
        const Read& read = this->read(thread.read);
        Threads start;
        watch(read.unique ? thread.frame : NONE);
        if (read.unique) close_if_viable(read.targets[tag], thread.frame, start);
        else close(read.targets[tag], thread.frame, start);
        tidy(start);
        auto take = [&](u32 low, u32 high, bool surely) {
            for (u32 at = tails.first[low]; at < tails.first[high]; ++at) {
                auto [token, exit] = tails.entries[at];
                if (!may(exit) || (out[token >> 5] >> (token & 31) & 1)) continue;
                if (surely || can_read(thread, vocab_.token(token))) set_bit(out, token);
            }
        };
        if (touched_) {  // a text more in the frame's register only takes ways away: the rest needs no trial
            if (!start.empty()) unsure_.push_back(0);
            walk_tails(tails, start, [&](u32 node) { unsure_.push_back(node); });
            watch(NONE);
            for (u32 node : unsure_) take(node, node + 1, false);
            return unsure_.clear();
        }
        if (!start.empty()) take(0, 1, true);
        u32 unsure = 0;  // below this node tokens have been tried by themselves
        walk_tails(tails, start, [&](u32 node) {
            if (node < unsure) return;
            if (!touched_) return take(node, node + 1, true);
            touched_ = false;
            unsure = tails.skip[node];
            unsure_.push_back(node);
        });
        watch(NONE);
        for (u32 node : unsure_) take(node, tails.skip[node], false);
        unsure_.clear();
    }
    void close_if_viable(u32 target, u32 frame, Threads& to) {
        if (viable(target, frame)) close(target, frame, to);
    }
    template <class F>
    void walk_tails(const StringSets::Tails& tails, const Threads& start, F f) {
        bool bytes[256] = {};
        for (const Thread& thread : start.items) first_bytes(thread, bytes);
        for (u32 node = 1; node < tails.byte.size(); node = tails.skip[node])
            if (bytes[tails.byte[node]])
                walk(start, tails.byte.data(), tails.depth.data(), tails.skip.data(), node, tails.skip[node],
                     [&](u32 found, const Threads&) { f(found); });
    }
    bool can_read(const Thread& thread, Text token) {
        Threads* now = &trials_[0];
        now->clear();
        now->items.push_back(thread);
        for (size_t at = 0; at < token.size(); ++at) {
            Threads* next = &trials_[1 - (at & 1)];
            step(now->items, u8(token[at]), *next);
            if (next->empty()) return false;
            now = next;
        }
        return true;
    }

    const LeafSet& leaf_set(const Thread& thread, const StringSets& sets, u32 needed, u32 room) {
        // As long as characters are needed, their number says how many there is room for.
        u32 enough = sets.most() + 1 + leaf_of(thread.read).text->lives().farthest();
        SetKey key{read(thread.read).leaf, thread.at.place, thread.at.state, needed, needed ? 0 : std::min(room, enough)};
        auto known = leaf_sets_.find(key);
        if (known != leaf_sets_.end()) return *known->second;
        if (set_bytes_ > limit()) {
            leaf_sets_.clear();
            set_bytes_ = 0;
        }
        auto made = std::make_unique<LeafSet>();
        make_set(*leaf_of(thread.read).text, thread.at, sets, *made);
        set_bytes_ += made->mask.size() * 4 + made->tags.size() * 4 + 120;
        return *(leaf_sets_[key] = std::move(made));
    }
    void make_set(const TextLeaf& leaf, TextState start, const StringSets& sets, LeafSet& set) {
        const Trie& trie = vocab_.trie();
        set.mask.assign(vocab_.words(), 0);
        set.tags.assign(sets.exits().size(), -1);
        start.word = NONE;
        if (start.place == AT_OPEN) {
            if (vocab_.top('"') != NONE) read_trie(leaf, start, trie, vocab_.top('"'), sets, set, [](u32 node) { return node; });
            return;
        }
        for (u32 number = Slice::COUNT; number-- > 0;) {
            const Slice& slice = vocab_.slice(number);
            if (leaf.stays(slice, number, start) < slice.inside().most()) continue;
            merge(set.mask.data(), slice.inside().mask(NONE));
            return read_trie(leaf, start, slice.rest(), 0, sets, set, [&](u32 node) { return slice.number(node); });
        }
        read_trie(leaf, start, trie, 0, sets, set, [](u32 node) { return node; });
    }
    // Adds the tokens of a trie that stay inside the string, from a node of depth 1 on (from `"`: only its subtree).
    template <class Number>
    void read_trie(const TextLeaf& leaf, TextState start, const Trie& trie, u32 node, const StringSets& sets, LeafSet& set, Number number) {
        u32 end = start.place == AT_OPEN ? u32(trie.skip[node]) : trie.nodes;
        std::vector<TextState> path(MAX_DEPTH, start);  // path[d]: before the byte of a node at depth d + 1
        bool surely_live = leaf.surely_live(start, sets.most());
        while (node < end) {
            u32 depth = u32(trie.depth[node]);
            if (depth >= path.size()) path.resize(2 * depth);
            const TextState& before = path[depth - 1];
            TextState& at = path[depth] = before;
            ++work_;
            u8 byte = trie.byte[node];
            bool is_plain = at.place == AT_BODY && byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
            if (is_plain ? leaf.read_plain(at, byte) && (surely_live || leaf.live(at)) : stay(leaf, at, byte)) {
                for (i32 token = trie.first[node]; token < trie.first[node + 1]; ++token) set_bit(set.mask.data(), u32(trie.tokens[token]));
                ++node;
                continue;
            }
            if (at.place == NONE) {
                i32 tag = set.tags[sets.exit_at(number(node))] = leaf.end(before);
                if (tag >= 0 && std::find(set.kinds.begin(), set.kinds.end(), tag) == set.kinds.end()) set.kinds.push_back(tag);
            }
            node = u32(trie.skip[node]);
        }
    }
    // One more byte inside a string in which nothing is excluded; false at its end (the place is then NONE) or if dead.
    static bool stay(const TextLeaf& leaf, TextState& at, u8 byte) {
        Decoded found = decode(at.place, byte, true);
        if (found.event == Event::letter) return leaf.read(at, found.value) && leaf.live(at);
        if (found.event == Event::closed) at.place = NONE;
        if (found.event != Event::place && found.event != Event::opened) return false;
        at.place = found.value;
        return leaf.live(at);
    }
    void forget() override { trials_[0].clear(), trials_[1].clear(); }

    Alphabet alphabet_;
    const Vocab& vocab_;
    std::unordered_map<SetKey, std::unique_ptr<LeafSet>, HashKey> leaf_sets_;
    std::deque<Threads> levels_;
    Threads trials_[2];
    std::vector<u32> unsure_, mask_;
    size_t work_ = 0, peak_ = 0, set_bytes_ = 0;
};

}  // namespace minillm
