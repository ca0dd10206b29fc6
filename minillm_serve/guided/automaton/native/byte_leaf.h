// Leaves that read bytes as they stand: one of some literals, or a byte automaton.
#pragma once

#include "spelling.h"

namespace minillm {

class ByteLeaf {
public:
    struct Edge {
        u32 from, to;
        u8 byte;
    };

    // A trie of literals: all different, none empty.
    static ByteLeaf of_literals(const std::vector<Text>& texts, const i32* tags, const Alphabet& alphabet) {
        std::vector<u32> order(texts.size());
        for (u32 i = 0; i < order.size(); ++i) order[i] = i;
        std::sort(order.begin(), order.end(), [&](u32 a, u32 b) { return texts[a] < texts[b]; });
        std::vector<Edge> edges;
        std::vector<i32> ends{-1};
        std::vector<u32> path{0};
        Text before;
        for (u32 i : order) {
            size_t shared = 0, most = std::min(before.size(), texts[i].size());
            while (shared < most && before[shared] == texts[i][shared]) ++shared;
            path.resize(shared + 1);
            for (size_t at = shared; at < texts[i].size(); ++at) {
                edges.push_back({path.back(), u32(ends.size()), u8(texts[i][at])});
                path.push_back(u32(ends.size()));
                ends.push_back(-1);
            }
            ends[path.back()] = tags[i];
            before = texts[i];
        }
        return ByteLeaf(std::move(ends), edges, 0, alphabet, true);
    }

    // tags: one for each state, -1 where the leaf may not end. trimmed: from each state an end can be reached.
    ByteLeaf(std::vector<i32> tags, const std::vector<Edge>& edges, u32 start, const Alphabet& alphabet, bool trimmed)
        : tags_(std::move(tags)), start_(start), alphabet_(&alphabet) {
        for (const Edge& edge : edges) trimmed &= alphabet.has(edge.byte);
        std::vector<u32> live = trimmed ? std::vector<u32>(tags_.size(), 0) : distances(edges, nullptr);
        is_live_ = live[start] < FAR;
        first_.assign(tags_.size() + 1, 0);
        for (const Edge& edge : edges) first_[edge.from + 1] += live[edge.to] < FAR;
        for (size_t state = 1; state < first_.size(); ++state) first_[state] += first_[state - 1];
        byte_.resize(first_.back());
        to_.resize(first_.back());
        std::vector<u32> at(first_.begin(), first_.end() - 1);
        for (const Edge& edge : edges) {
            if (live[edge.to] >= FAR) continue;
            byte_[at[edge.from]] = edge.byte;
            to_[at[edge.from]++] = edge.to;
        }
        for (u32 state = 0; state + 1 < first_.size(); ++state) sort_edges(first_[state], first_[state + 1]);
    }

    // The same without the ends whose tags are dead.
    ByteLeaf without(const std::vector<bool>& dead) const {
        std::vector<i32> tags = tags_;
        for (i32& tag : tags)
            if (tag >= 0 && dead[tag]) tag = -1;
        return ByteLeaf(std::move(tags), edges(), start_, *alphabet_, false);
    }

    bool is_live() const { return is_live_; }
    u32 start() const { return start_; }
    i32 tag(u32 state) const { return tags_[state]; }
    u32 edges_begin(u32 state) const { return first_[state]; }
    u32 edges_end(u32 state) const { return first_[state + 1]; }
    bool has_edges(u32 state) const { return first_[state] < first_[state + 1]; }
    u8 edge_byte(u32 edge) const { return byte_[edge]; }
    u32 edge_to(u32 edge) const { return to_[edge]; }
    bool writable(u32 edge) const { return alphabet_->has(byte_[edge]); }
    size_t nbytes() const { return 96 + tags_.size() * 8 + byte_.size() * 5; }

    // NONE where no text of the leaf goes on like this.
    u32 step(u32 state, u8 byte) const {
        u32 low = first_[state], high = first_[state + 1];
        while (high - low > 6) {
            u32 middle = (low + high) / 2;
            (byte_[middle] <= byte ? low : high) = middle;
        }
        for (; low < high; ++low)
            if (byte_[low] == byte) return to_[low];
        return NONE;
    }

    // Bytes from each state to an end and what `weights` adds for its tag (null: nothing): Dijkstra from all ends.
    std::vector<u32> distances(const u32* weights) const { return distances(edges(), weights); }

    // Has the leaf more than `bound` texts from here on?
    bool roomy(u32 state, u32 bound) const {
        if (words_.empty()) count_words();
        return words_[state] > bound;
    }

private:
    std::vector<Edge> edges() const {
        std::vector<Edge> found;
        for (u32 state = 0; state + 1 < first_.size(); ++state)
            for (u32 edge = first_[state]; edge < first_[state + 1]; ++edge)
                found.push_back({state, to_[edge], byte_[edge]});
        return found;
    }

    std::vector<u32> distances(const std::vector<Edge>& edges, const u32* weights) const {
        std::vector<u32> first(tags_.size() + 1, 0), sources(edges.size()), found(tags_.size(), FAR);
        for (const Edge& edge : edges) ++first[edge.to];
        for (size_t state = 1; state < first.size(); ++state) first[state] += first[state - 1];
        for (const Edge& edge : edges) sources[--first[edge.to]] = alphabet_->has(edge.byte) ? edge.from : NONE;
        std::vector<std::pair<u32, u32>> queue;  // (distance, state), a heap with the least on top
        for (u32 state = 0; state < tags_.size(); ++state)
            if (tags_[state] >= 0) queue.push_back({found[state] = weights ? weights[tags_[state]] : 0, state});
        auto later = [](const auto& a, const auto& b) { return a > b; };
        std::make_heap(queue.begin(), queue.end(), later);
        while (!queue.empty()) {
            std::pop_heap(queue.begin(), queue.end(), later);
            auto [distance, state] = queue.back();
            queue.pop_back();
            if (distance > found[state]) continue;
            for (u32 at = first[state]; at < first[state + 1]; ++at) {
                u32 source = sources[at];
                if (source == NONE || distance + 1 >= found[source]) continue;
                queue.push_back({found[source] = distance + 1, source});
                std::push_heap(queue.begin(), queue.end(), later);
            }
        }
        return found;
    }

    // words_: how many texts can be written from each state; FAR stands for FAR and more. Depth first, without calls.
    void count_words() const {
        enum : u8 { fresh, open, done };
        words_.assign(tags_.size(), 0);
        std::vector<u8> mark(tags_.size(), fresh);
        std::vector<std::pair<u32, u32>> stack{{start_, first_[start_]}};
        mark[start_] = open;
        words_[start_] = tags_[start_] >= 0;
        while (!stack.empty()) {
            auto& [state, edge] = stack.back();
            if (edge == first_[state + 1]) {
                mark[state] = done;
                u32 words = words_[state];
                stack.pop_back();
                if (!stack.empty()) add_words(stack.back().first, words);
                continue;
            }
            u32 target = to_[edge], source = state;
            bool can_write = writable(edge++);
            if (mark[target] == fresh) {  // an edge on a byte without a token of its own is followed, but adds nothing
                mark[target] = open;
                words_[target] = tags_[target] >= 0;
                if (can_write) stack.push_back({target, first_[target]});
                else mark[target] = fresh;
            } else if (can_write) {
                add_words(source, mark[target] == open ? FAR : words_[target]);  // round in a circle: any number
            }
        }
    }
    void add_words(u32 state, u32 words) const { words_[state] = far_sum(words_[state], words); }

    void sort_edges(u32 low, u32 high) {
        std::vector<std::pair<u8, u32>> row;
        bool sorted = true;
        for (u32 edge = low + 1; edge < high; ++edge) sorted &= byte_[edge - 1] < byte_[edge];
        if (sorted) return;
        for (u32 edge = low; edge < high; ++edge) row.push_back({byte_[edge], to_[edge]});
        std::sort(row.begin(), row.end());
        for (u32 edge = low; edge < high; ++edge) std::tie(byte_[edge], to_[edge]) = row[edge - low];
    }

    std::vector<i32> tags_;
    std::vector<u32> first_, to_;
    std::vector<u8> byte_;
    u32 start_;
    const Alphabet* alphabet_;
    bool is_live_;
    mutable std::vector<u32> words_;
};

}  // namespace minillm
