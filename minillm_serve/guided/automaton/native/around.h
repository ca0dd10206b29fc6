// The way to an end that avoids forbidden texts: what has been read so far is the beginning of some of them.
#pragma once

#include <iterator>

#include "byte_leaf.h"
#include "text_leaf.h"

namespace minillm {

// Forbidden texts without what has been read of them: sorted, all different.
using Rests = std::vector<Text>;

inline Rests merged(const Rests& a, const Rests& b) {
    Rests found;
    std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(found));
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

// One place of the search: `spent` bytes on, the rests from low up to high begin with the same `depth` bytes.
template <class State>
struct Beginning {
    State at;
    u32 low, high, depth, spent;
};

// Bytes to an end that is not forbidden, FAR if there is none. table: distances when nothing is forbidden; weights:
// what is added for each tag (null: nothing). any: some way will do (its length is returned), not the shortest.
inline u32 way_around(const ByteLeaf& leaf, u32 state, const Rests& rests, const std::vector<u32>& table,
                      const u32* weights, bool any) {
    std::vector<Beginning<u32>> stack{{state, 0, u32(rests.size()), 0, 0}};
    u32 best = FAR;
    while (!stack.empty()) {
        auto [at, low, high, depth, spent] = stack.back();
        stack.pop_back();
        if (far_sum(spent, table[at]) >= best) continue;
        bool is_forbidden = low < high && rests[low].size() == depth;
        if (leaf.tag(at) >= 0 && !is_forbidden) best = std::min(best, far_sum(spent, weights ? weights[leaf.tag(at)] : 0));
        low += is_forbidden;
        for (u32 edge = leaf.edges_begin(at); edge < leaf.edges_end(at); ++edge) {
            u8 byte = leaf.edge_byte(edge);
            if (!leaf.writable(edge)) continue;
            auto from = std::partition_point(rests.begin() + low, rests.begin() + high,
                                             [&](Text rest) { return u8(rest[depth]) < byte; });
            auto to = std::partition_point(from, rests.begin() + high, [&](Text rest) { return u8(rest[depth]) == byte; });
            u32 target = leaf.edge_to(edge);
            if (from == to) best = std::min(best, far_sum(u64(spent) + 1, table[target]));
            else stack.push_back({target, u32(from - rests.begin()), u32(to - rests.begin()), depth + 1, spent + 1});
        }
        if (any && best < FAR) break;
    }
    return best;
}

class TextSearch {
public:
    TextSearch(const TextLeaf& leaf, const Rests& rests, const Distances& table, bool any)
        : leaf_(leaf), rests_(rests), table_(table), any_(any) {}

    u32 run(TextState start) {
        u32 opening = start.place == AT_OPEN ? leaf_.closing() : 0;
        if (opening >= FAR) return FAR;
        if (start.place == AT_OPEN) start.place = AT_BODY;
        start.word = NONE;
        stack_.push_back({start, 0, u32(rests_.size()), 0, opening});
        while (!stack_.empty() && !(any_ && best_ < FAR)) {
            Beginning<TextState> next = stack_.back();
            stack_.pop_back();
            if (far_sum(next.spent, leaf_.plain_cost(next.at, table_)) < best_) expand(next);
        }
        return best_;
    }

private:
    struct Child {
        u32 letter, price;
    };

    void expand(Beginning<TextState> from) {
        bool is_forbidden = from.low < from.high && rests_[from.low].size() == from.depth;
        if (leaf_.end(from.at) >= 0 && !is_forbidden) offer(from.spent, table_.end(from.at.state));
        from.low += is_forbidden;
        if (!leaf_.has_room(from.at.count)) return;
        std::vector<Child> children;
        for (u32 low = from.low; low < from.high;) low = child(from, low, children);
        std::vector<u32> levels = leaf_.levels(from.at.place);
        for (Child child : children) --levels[child.letter * MAX_SPELLING + child.price];
        u32 count = leaf_.counted(from.at.count + 1);
        for (u32 letter = 0; letter < leaf_.classes(); ++letter) {
            i32 target = leaf_.row(from.at.state)[letter];
            u32 price = TextLeaf::cheapest(&levels[letter * MAX_SPELLING]);
            if (target >= 0 && price < FAR) offer(from.spent + price, table_.at(u32(target), count));
        }
    }
    // The end of the rests that go on with the same character as number `low`.
    u32 child(const Beginning<TextState>& from, u32 low, std::vector<Child>& children) {
        Text letter = rests_[low].substr(from.depth, utf8_length(u8(rests_[low][from.depth])));
        auto ends = std::partition_point(rests_.begin() + low, rests_.begin() + from.high,
                                         [&](Text rest) { return rest.compare(from.depth, letter.size(), letter) == 0; });
        u32 code = utf8_front(letter), price = price_of(from.at.place, code), high = u32(ends - rests_.begin());
        if (price >= FAR) return high;
        children.push_back({leaf_.class_of(code), price});
        TextState at = from.at;
        if (leaf_.read(at, code)) stack_.push_back({at, low, high, from.depth + u32(letter.size()), from.spent + price});
        return high;
    }
    u32 price_of(u32 place, u32 code) const {
        for (const Run& run : leaf_.alphabet().runs(place, leaf_.quoted()))
            if (run.low <= code && code <= run.high) return run.cost;
        return FAR;
    }
    void offer(u64 spent, u32 more) { best_ = std::min(best_, far_sum(spent, more)); }

    const TextLeaf& leaf_;
    const Rests& rests_;
    const Distances& table_;
    bool any_;
    u32 best_ = FAR;
    std::vector<Beginning<TextState>> stack_;
};

}  // namespace minillm
