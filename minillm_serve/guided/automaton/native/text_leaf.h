// Leaves that read characters: a JSON string with its quotes and escapes, or bare UTF-8.
#pragma once

#include "distances.h"
#include "slices.h"

namespace minillm {

// Where a text stands in such a leaf. place: in the spelling of a character. state: of the automaton. count: of
// characters, as far as it matters. word, depth: the first `depth` bytes of excluded text number `word` are what has
// been read; NONE once no excluded text begins so.
struct TextState {
    u32 place, state, count, word, depth;
};

class TextLeaf {
public:
    // What an automaton over code points looks like from outside; see text/chars.py.
    struct Chars {
        std::vector<u32> bounds, classes;  // interval i, from bounds[i] on, has class classes[i]
        CharRows rows;
    };

    // is_any: the automaton accepts every text. excluded: sorted UTF-8, all different.
    TextLeaf(Chars chars, bool is_any, u32 low, u32 high, bool quoted, std::vector<std::string> excluded,
             const Alphabet& alphabet)
        : alphabet_(&alphabet), chars_(std::move(chars)), is_any_(is_any), low_(low), high_(high), quoted_(quoted) {
        for (u32 code = 0, interval = 0; code < 128; ++code) {
            while (interval + 1 < chars_.bounds.size() && chars_.bounds[interval + 1] <= code) ++interval;
            ascii_[code] = chars_.classes[interval];
        }
        closing_ = !quoted ? 0 : alphabet.has('"') ? 1 : FAR;
        levels_ = levels(AT_BODY);
        prices_.assign(chars_.rows.classes, FAR);
        for (u32 letter = 0; letter < prices_.size(); ++letter) prices_[letter] = cheapest(&levels_[letter * MAX_SPELLING]);
        lives_ = std::make_unique<Distances>(weighted(nullptr));
        for (std::string& text : excluded)
            if (matches(text)) excluded_.push_back(std::move(text));
        roomy_.assign(chars_.rows.states, NONE);
    }

    TextLeaf(const TextLeaf&) = delete;  // its distances point into it

    // The same without the ends whose tags are dead.
    TextLeaf without(const std::vector<bool>& dead) const {
        Chars chars = chars_;
        for (i32& tag : chars.rows.tags)
            if (tag >= 0 && dead[tag]) tag = -1;
        return TextLeaf(std::move(chars), false, low_, high_, quoted_, excluded_, *alphabet_);
    }

    bool quoted() const { return quoted_; }
    bool is_any() const { return is_any_; }
    u32 low() const { return low_; }
    u32 high() const { return high_; }
    u32 states() const { return chars_.rows.states; }
    i32 tag(u32 state) const { return chars_.rows.tags[state]; }
    const std::vector<std::string>& excluded() const { return excluded_; }
    size_t nbytes() const {
        size_t words = 0;
        for (const std::string& text : excluded_) words += text.size() + 32;
        return 800 + words + 4 * (chars_.bounds.size() * 2 + chars_.rows.rows.size() + chars_.rows.states * 3) + lives_->nbytes();
    }

    TextState start() const { return {quoted_ ? AT_OPEN : AT_BODY, 0, 0, excluded_.empty() ? NONE : 0, 0}; }

    u32 class_of(u32 code) const {
        if (code < 128) return ascii_[code];
        auto above = std::upper_bound(chars_.bounds.begin(), chars_.bounds.end(), code);
        return chars_.classes[above - chars_.bounds.begin() - 1];
    }
    // The automaton's next state, -1 if there is none.
    i32 next(u32 state, u32 code) const { return chars_.rows.row(state)[class_of(code)]; }
    // A count, or the smallest one that leads to the same.
    u32 counted(u32 count) const { return high_ == NONE ? std::min(count, low_) : count; }
    bool has_room(u32 count) const { return high_ == NONE || count < high_; }

    // The same as read() for a printable ASCII character when nothing is excluded.
    bool read_plain(TextState& at, u8 byte) const {
        i32 target = chars_.rows.row(at.state)[ascii_[byte]];
        if (target < 0 || !has_room(at.count)) return false;
        at.state = u32(target);
        at.count = counted(at.count + 1);
        return true;
    }
    // Are all states live with up to so many characters more, whatever they are?
    bool surely_live(const TextState& at, u32 characters) const {
        u32 needed = low_ - std::min(at.count, low_), room = high_ == NONE ? NONE : high_ - at.count;
        if (!lives_->all_live(needed)) return false;
        return room == NONE || u64(room) >= u64(characters) + lives_->farthest();
    }

    // The state after one more character; false where there is none. Whether it is live is not asked.
    bool read(TextState& at, u32 code) const {
        i32 target = next(at.state, code);
        if (target < 0 || !has_room(at.count)) return false;
        char bytes[4];
        if (at.word != NONE) narrow(at, Text(bytes, utf8_put(code, bytes)));
        at.place = AT_BODY;
        at.state = u32(target);
        at.count = counted(at.count + 1);
        return true;
    }

    // The tag with which the characters may end here (if they are not excluded), -1 if they may not.
    i32 end(const TextState& at) const {
        return at.place == AT_BODY && at.count >= low_ ? chars_.rows.tags[at.state] : -1;
    }
    bool is_excluded(const TextState& at) const { return at.word != NONE && excluded_[at.word].size() == at.depth; }

    // Can an end be reached, if no text is excluded?
    bool live(const TextState& at) const {
        if (at.place == AT_BODY || at.place == AT_OPEN) return lives_->live(at.state, at.count);
        return has_room(at.count) && crowd(at, 0);
    }
    // Are there certainly more ways on, each to a live state, than `bound` texts can close?
    bool roomy(const TextState& at, u32 bound) const {
        if (!has_room(at.count)) return false;
        if (at.place != AT_BODY && at.place != AT_OPEN) return crowd(at, bound);
        if (high_ == NONE && at.count >= low_) {
            u32& known = roomy_[at.state];
            if (known == NONE) known = most_ways(at);
            return known > bound;
        }
        return most_ways(at) > bound;
    }
    // Bytes to an end when nothing is excluded; `table` is lives() or weighted().
    u32 plain_cost(const TextState& at, const Distances& table) const {
        if (at.place == AT_BODY) return table.at(at.state, at.count);
        if (at.place == AT_OPEN) return far_sum(table.at(at.state, at.count), closing_);
        if (!has_room(at.count)) return FAR;
        u32 best = FAR, count = counted(at.count + 1);
        each_interval(at, [&](u32 letter, u32, u32 price) {
            i32 target = chars_.rows.row(at.state)[letter];
            if (target >= 0) best = std::min(best, far_sum(price, table.at(u32(target), count)));
            return false;
        });
        return best;
    }
    // Distances that count weights[tag] after an end (null: nothing).
    Distances weighted(const u32* weights) const {
        std::vector<u32> ends(chars_.rows.states, FAR);
        for (u32 state = 0; state < ends.size(); ++state)
            if (i32 tag = chars_.rows.tags[state]; tag >= 0) ends[state] = far_sum(closing_, weights ? weights[tag] : 0);
        return Distances(chars_.rows, prices_, std::move(ends), low_, high_);
    }
    const Distances& lives() const { return *lives_; }
    u32 closing() const { return closing_; }
    const Alphabet& alphabet() const { return *alphabet_; }
    const i32* row(u32 state) const { return chars_.rows.row(state); }
    u32 classes() const { return chars_.rows.classes; }

    // How many characters of a slice may come from here on in any order, so that a way to an end is still open.
    u32 stays(const Slice& slice, u32 number, const TextState& at) const {
        u32 needed = low_ - std::min(at.count, low_), room = high_ == NONE ? NONE : high_ - at.count;
        if (letters_[number].empty()) letters_[number] = letters(slice);
        for (u32 letter : letters_[number])
            if (chars_.rows.row(at.state)[letter] < 0) return 0;
        if (!lives_->all_live(needed)) return 0;
        if (in_slice_[number].empty()) in_slice_[number] = steps_inside(letters_[number]);
        u32 steps = in_slice_[number][at.state];
        if (room == NONE) return steps;
        return std::min(steps, room - std::min(room, lives_->farthest()));
    }

    // [classes][MAX_SPELLING]: how many code points of a class are that many bytes from being complete.
    std::vector<u32> levels(u32 place) const {
        std::vector<u32> found(size_t(chars_.rows.classes) * MAX_SPELLING, 0);
        each_interval({place, 0, 0, NONE, 0}, [&](u32 letter, u32 size, u32 price) {
            found[letter * MAX_SPELLING + price] += size;
            return false;
        });
        return found;
    }
    static u32 cheapest(const u32* level) {
        for (u32 price = 0; price < MAX_SPELLING; ++price)
            if (level[price]) return price;
        return FAR;
    }

    // The excluded texts that begin with what has been read: from `word` up to this number.
    u32 words_end(const TextState& at) const {
        Text begin = Text(excluded_[at.word]).substr(0, at.depth);
        auto ends = std::partition_point(excluded_.begin() + at.word, excluded_.end(),
                                         [&](const std::string& text) { return text.compare(0, at.depth, begin) == 0; });
        return u32(ends - excluded_.begin());
    }

private:
    // f(class, size, price) for each run of code points that can be completed from `at` by single-byte tokens; a true
    // answer ends it.
    template <class F>
    bool each_interval(const TextState& at, F f) const {
        for (const Run& run : alphabet_->runs(at.place, quoted_)) {
            auto above = std::upper_bound(chars_.bounds.begin(), chars_.bounds.end(), run.low);
            for (size_t interval = above - chars_.bounds.begin() - 1; interval < chars_.bounds.size(); ++interval) {
                u32 low = std::max(run.low, chars_.bounds[interval]), high = run.high;
                if (low > run.high) break;
                if (interval + 1 < chars_.bounds.size()) high = std::min(high, chars_.bounds[interval + 1] - 1);
                if (f(chars_.classes[interval], high - low + 1, run.cost)) return true;
            }
        }
        return false;
    }
    // In the middle of a character: has some run of more than `bound` code points a live state behind it?
    bool crowd(const TextState& at, u32 bound) const {
        u32 count = counted(at.count + 1);
        return each_interval(at, [&](u32 letter, u32 size, u32) {
            i32 target = chars_.rows.row(at.state)[letter];
            return target >= 0 && size > bound && lives_->live(u32(target), count);
        });
    }
    u32 most_ways(const TextState& at) const {
        u32 most = 0, count = counted(at.count + 1);
        for (u32 letter = 0; letter < chars_.rows.classes; ++letter) {
            i32 target = chars_.rows.row(at.state)[letter];
            if (target < 0 || !lives_->live(u32(target), count)) continue;
            u32 ways = 0;
            for (u32 price = 0; price < MAX_SPELLING; ++price) ways += levels_[letter * MAX_SPELLING + price];
            most = std::max(most, ways);
        }
        return most;
    }
    void narrow(TextState& at, Text letter) const {
        u32 end = words_end(at), depth = at.depth;
        auto first = std::partition_point(excluded_.begin() + at.word, excluded_.begin() + end,
                                          [&](const std::string& text) { return text.compare(depth, letter.size(), letter) < 0; });
        bool meets = first != excluded_.begin() + end && first->compare(depth, letter.size(), letter) == 0;
        at.word = meets ? u32(first - excluded_.begin()) : NONE;
        at.depth = meets ? depth + u32(letter.size()) : 0;
    }
    bool matches(Text text) const {
        TextState at{AT_BODY, 0, 0, NONE, 0};
        while (!text.empty()) {
            if (!read(at, utf8_front(text))) return false;
            text.remove_prefix(utf8_length(u8(text[0])));
        }
        return end(at) >= 0;
    }

    // The classes of which a slice has some code point.
    std::vector<u32> letters(const Slice& slice) const {
        std::vector<u32> found;
        for (u32 code = 0; code < 128; ++code)
            if (slice.holds(code)) found.push_back(ascii_[code]);
        for (size_t interval = 0; interval < chars_.bounds.size(); ++interval) {
            u32 low = std::max(chars_.bounds[interval], 0x80u);
            u32 high = interval + 1 < chars_.bounds.size() ? chars_.bounds[interval + 1] - 1 : 0x10ffff;
            if (low <= high && slice.meets(low, high)) found.push_back(chars_.classes[interval]);
        }
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        return found;
    }
    // [states] characters of these classes that lead from a state to live states only, whatever their order.
    std::vector<u32> steps_inside(const std::vector<u32>& letters) const {
        u32 states = chars_.rows.states;
        std::vector<u32> steps(states, NONE), queue, first(states + 1, 0), sources(letters.size() * states);
        for (u32 state = 0; state < states; ++state)
            for (u32 letter : letters) {
                i32 target = chars_.rows.row(state)[letter];
                if (target >= 0) ++first[target];
                else steps[state] = 0;
            }
        for (u32 state = 1; state <= states; ++state) first[state] += first[state - 1];
        for (u32 state = 0; state < states; ++state) {
            if (steps[state] == 0) queue.push_back(state);
            for (u32 letter : letters)
                if (i32 target = chars_.rows.row(state)[letter]; target >= 0) sources[--first[target]] = state;
        }
        for (size_t at = 0; at < queue.size(); ++at)
            for (u32 from = first[queue[at]]; from < first[queue[at] + 1]; ++from)
                if (steps[sources[from]] == NONE) {
                    steps[sources[from]] = steps[queue[at]] + 1;
                    queue.push_back(sources[from]);
                }
        return steps;
    }

    const Alphabet* alphabet_;
    Chars chars_;
    bool is_any_;
    u32 low_, high_;
    bool quoted_;
    std::vector<std::string> excluded_;
    u32 ascii_[128], closing_;
    std::vector<u32> levels_, prices_;
    std::unique_ptr<Distances> lives_;
    mutable std::vector<u32> roomy_, letters_[Slice::COUNT], in_slice_[Slice::COUNT];
};

}  // namespace minillm
