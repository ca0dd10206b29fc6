// How many bytes it takes from a state of a character automaton to an end, with so many characters read.
#pragma once

#include "common.h"

namespace minillm {

// rows: [states][classes], the next state or -1. tags: [states], -1 where a text may not end.
struct CharRows {
    u32 states, classes;
    std::vector<i32> rows, tags;
    const i32* row(u32 state) const { return &rows[size_t(state) * classes]; }
};

class Distances {
public:
    // prices: [classes] bytes of the shortest character, FAR if none can be written. ends: [states] what the end
    // costs, FAR where there is none. low, high: limits on the number of characters (high NONE: no limit).
    Distances(const CharRows& rows, const std::vector<u32>& prices, std::vector<u32> ends, u32 low, u32 high)
        : rows_(&rows), prices_(&prices), ends_(std::move(ends)), low_(low), high_(high) {
        std::tie(bytes_, chars_) = nearest(false);
        any_dead_ = *std::max_element(bytes_.begin(), bytes_.end()) >= FAR;
        if (high_ != NONE) least_chars_ = nearest(true).second;
    }

    // FAR where no end can be reached.
    u32 at(u32 state, u32 count) const {
        if (count < low_) return short_of(low_ - count, state);
        return high_ == NONE ? bytes_[state] : within(high_ - std::min(count, high_), state);
    }
    bool live(u32 state, u32 count) const {
        if (count < low_) return short_of(low_ - count, state) < FAR;
        return high_ == NONE ? bytes_[state] < FAR : least_chars_[state] <= high_ - std::min(count, high_);
    }
    // What an end costs in this state, FAR where there is none.
    u32 end(u32 state) const { return ends_[state]; }
    // Can an end be reached from every state, if at least up to `needed` more characters are asked for?
    bool all_live(u32 needed) const {
        if (any_dead_) return false;
        for (; all_live_ < needed; ++all_live_)
            for (u32 state = 0; state < rows_->states; ++state)
                if (short_of(all_live_ + 1, state) >= FAR) return false;
        return true;
    }
    // With room for so many more characters and one, more room changes nothing.
    u32 farthest() const {
        u32 most = 0;
        for (u32 chars : least_chars_) most = chars < FAR ? std::max(most, chars) : most;
        return most;
    }
    size_t nbytes() const {
        return 200 + 4 * (ends_.size() * 4 + rows_->states * (short_.size() + within_.size()));
    }

private:
    using Row = std::vector<u32>;
    static constexpr size_t MAX_CELLS = 16u << 20;

    // Dijkstra from all ends: the least (bytes, characters), or with `fewest` the least (characters, bytes).
    std::pair<Row, Row> nearest(bool fewest) const {
        u32 states = rows_->states, classes = rows_->classes;
        Row first(states + 1, 0), sources, prices, bytes(states, FAR), chars(states, FAR);
        for (i32 target : rows_->rows) first[target < 0 ? states : u32(target)]++;
        first[states] = 0;
        for (u32 state = 1; state <= states; ++state) first[state] += first[state - 1];
        sources.resize(first[states]);
        prices.resize(first[states]);
        for (u32 state = 0; state < states; ++state)
            for (u32 letter = 0; letter < classes; ++letter) {
                i32 target = rows_->row(state)[letter];
                if (target < 0) continue;
                sources[--first[target]] = state;
                prices[first[target]] = (*prices_)[letter];
            }
        struct Item {
            u32 key, other, state;
            bool operator<(const Item& b) const { return std::tie(b.key, b.other) < std::tie(key, other); }
        };
        std::vector<Item> queue;
        Row& keys = fewest ? chars : bytes;
        Row& others = fewest ? bytes : chars;
        for (u32 state = 0; state < states; ++state) {
            if (ends_[state] >= FAR) continue;
            bytes[state] = ends_[state];
            chars[state] = 0;
            queue.push_back({keys[state], others[state], state});
        }
        std::make_heap(queue.begin(), queue.end());
        while (!queue.empty()) {
            std::pop_heap(queue.begin(), queue.end());
            Item item = queue.back();
            queue.pop_back();
            if (std::tie(item.key, item.other) > std::tie(keys[item.state], others[item.state])) continue;
            for (u32 at = first[item.state]; at < first[item.state + 1]; ++at) {
                if (prices[at] >= FAR) continue;
                u32 source = sources[at], key = item.key + (fewest ? 1 : prices[at]);
                u32 other = item.other + (fewest ? prices[at] : 1);
                if (std::tie(key, other) >= std::tie(keys[source], others[source])) continue;
                keys[source] = key;
                others[source] = other;
                queue.push_back({key, other, source});
                std::push_heap(queue.begin(), queue.end());
            }
        }
        return {bytes, chars};
    }

    // One character further from the end: [states].
    Row back(const Row& ahead) const {
        Row found(rows_->states, FAR);
        for (u32 state = 0; state < rows_->states; ++state)
            for (u32 letter = 0; letter < rows_->classes; ++letter) {
                i32 target = rows_->row(state)[letter];
                if (target >= 0) found[state] = std::min(found[state], far_sum(ahead[target], (*prices_)[letter]));
            }
        return found;
    }

    // At most `room` more characters. Layers are made only where the shortest way in bytes has too many characters.
    u32 within(u32 room, u32 state) const {
        if (chars_[state] <= room) return bytes_[state];
        if (least_chars_[state] > room) return FAR;
        if (within_.empty()) within_.push_back(ends_);
        while (within_.size() <= room) {
            check(within_.size());
            Row next = back(within_.back());
            for (u32 at = 0; at < rows_->states; ++at) next[at] = std::min(next[at], ends_[at]);
            within_.push_back(std::move(next));
        }
        return within_[room][state];
    }

    // At least `needed` more characters: layers from `needed` 0 on, until one comes back larger by a constant.
    u32 short_of(u32 needed, u32 state) const {
        while (short_.size() <= needed && period_ == 0) extend();
        if (needed < short_.size()) return short_[needed][state];
        u32 rounds = (needed - repeat_) / period_, place = repeat_ + (needed - repeat_) % period_;
        u32 found = short_[place][state];
        return found >= FAR ? FAR : far_sum(found, u64(rounds) * growth_);
    }
    void extend() const {
        if (short_.empty()) {
            Row least(rows_->states);
            for (u32 state = 0; state < rows_->states; ++state)
                least[state] = high_ == NONE ? bytes_[state] : within(high_ - low_, state);
            return add_short(std::move(least));
        }
        check(short_.size());
        add_short(back(short_.back()));
    }
    void add_short(Row row) const {
        u32 base = *std::min_element(row.begin(), row.end());
        Row key = row;
        for (u32& value : key) value = value >= FAR ? FAR : value - base;
        u64 hash = hash_bytes(key.data(), key.size() * 4);
        if (auto before = seen_.find(hash); before != seen_.end() && shifted(before->second, key)) {
            repeat_ = before->second;
            period_ = u32(short_.size()) - repeat_;
            growth_ = base >= FAR ? 0 : base - *std::min_element(short_[repeat_].begin(), short_[repeat_].end());
            return;
        }
        seen_[hash] = u32(short_.size());
        short_.push_back(std::move(row));
    }
    bool shifted(u32 before, const Row& key) const {
        const Row& row = short_[before];
        u32 base = *std::min_element(row.begin(), row.end());
        for (u32 state = 0; state < key.size(); ++state)
            if ((row[state] >= FAR ? FAR : row[state] - base) != key[state]) return false;
        return true;
    }
    void check(size_t layers) const {
        if (layers * rows_->states > MAX_CELLS) throw Failure::too_large;
    }

    const CharRows* rows_;
    const std::vector<u32>* prices_;
    Row ends_, bytes_, chars_, least_chars_;
    u32 low_, high_;
    bool any_dead_;  // some state has no way to an end
    mutable std::vector<Row> within_, short_;
    mutable std::unordered_map<u64, u32> seen_;
    mutable u32 repeat_ = 0, period_ = 0, growth_ = 0, all_live_ = 0;
};

}  // namespace minillm
