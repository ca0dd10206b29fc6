// Positions: sets of threads that have a number as long as somebody holds them.
#pragma once

#include <numeric>

#include "threads.h"

namespace minillm {

struct Position {
    std::vector<Thread> threads;
    bool complete;
    u32 holders;
    u64 hash;
    std::vector<u32> mask;  // once it was worth keeping
    u64 used = 0;  // when the mask was last asked for
};

class Positions : public Runner {
public:
    Positions(const Alphabet& alphabet, u32 max_depth, Expand expand, Cost cost, size_t limit)
        : Runner(alphabet, max_depth, expand, cost), limit_(limit), next_sweep_(limit) {}
    virtual ~Positions() = default;

    u32 start(u32 state) {
        Threads& first = buffers_[0];
        first.clear();
        close(state, outermost(), first);
        tidy(first);
        return first.empty() ? NONE : hold(first);
    }
    // NONE when no valid text goes on like this.
    u32 advance(u32 position, const u8* data, size_t size) {
        const std::vector<Thread>* from = &slots_[position]->threads;
        Threads* to = &buffers_[0];
        if (size == 0) return held(position);
        for (size_t at = 0; at < size; ++at) {
            to = &buffers_[at & 1];
            step(*from, data[at], *to);
            if (to->empty()) return NONE;
            from = &to->items;
        }
        u32 found = hold(*to);
        if (nbytes() > next_sweep_) sweep();
        return found;
    }
    bool complete(u32 position) const { return slots_[position]->complete; }
    const std::vector<Thread>& threads(u32 position) const { return slots_[position]->threads; }
    void release(u32 position) {
        if (position < slots_.size() && slots_[position] && slots_[position]->holders) --slots_[position]->holders;
    }
    u32 held(u32 position) {
        ++slots_[position]->holders;
        return position;
    }

    u32 cost(u32 position) {
        if (slots_[position]->complete) return 0;
        return cost_of(slots_[position]->threads);
    }

    // The bytes that must come next, up to the first choice; to end the text is a choice.
    std::string forced(u32 position, size_t limit) {
        std::string found;
        std::vector<Thread> now = slots_[position]->threads;
        bool complete = slots_[position]->complete;
        while (found.size() < limit && !complete) {
            int byte = only_byte(now);
            if (byte < 0) break;
            found.push_back(char(byte));
            step(now, u8(byte), buffers_[0]);
            now = buffers_[0].items;
            complete = buffers_[0].complete;
        }
        return found;
    }

    // The frames of a thread, innermost first: the states to which they return.
    std::vector<u32> returns(const Thread& thread) const {
        std::vector<u32> found;
        for (u32 at = thread.frame; memory_.frames[at].parent != NONE; at = memory_.frames[at].parent)
            found.push_back(memory_.frames[at].then);
        return found;
    }
    const Read& read_of(const Thread& thread) { return read(thread.read); }
    const Leaf& leaf_at(const Thread& thread) { return leaf_of(thread.read); }

    size_t nbytes() const { return net_bytes() + memory_.nbytes() + held_bytes_ + mask_bytes_ + viable_.size() * 32; }
    bool pruned() const { return pruned_; }
    void failed() { give_up(); }

protected:
    u32 cost_of(const std::vector<Thread>& threads) {
        u32 best = FAR;
        for (const Thread& thread : threads) best = std::min(best, thread_cost(thread));
        return best;
    }
    void keep_mask(u32 number, const u32* mask, size_t words) {
        Position& position = *slots_[number];
        if (mask_bytes_ + words * 4 > limit_) drop_masks();
        position.mask.assign(mask, mask + words);
        position.used = ++clock_;
        mask_bytes_ += words * 4;
    }
    Position& at(u32 position) { return *slots_[position]; }
    u64 tick() { return ++clock_; }
    size_t limit() const { return limit_; }

private:
    static constexpr size_t SLOT_BYTES = 160;

    u32 hold(const Threads& threads) {
        u64 hash = hash_bytes(threads.items.data(), threads.items.size() * sizeof(Thread)) * 2 + threads.complete;
        for (auto [at, end] = index_.equal_range(hash); at != end; ++at) {
            const Position& known = *slots_[at->second];
            if (known.complete == threads.complete && known.threads == threads.items) return held(at->second);
        }
        u32 number = u32(slots_.size());
        if (free_.empty()) {
            slots_.emplace_back();
        } else {
            number = free_.back();
            free_.pop_back();
        }
        slots_[number].reset(new Position{threads.items, threads.complete, 1, hash, {}, 0});
        index_.emplace(hash, number);
        held_bytes_ += SLOT_BYTES + threads.items.size() * sizeof(Thread);
        return number;
    }

    int only_byte(const std::vector<Thread>& threads) {
        int found = -1;
        for (const Thread& thread : threads) {
            const Leaf& leaf = leaf_of(thread.read);
            u32 low = 0, high = 256;
            if (leaf.bytes) low = leaf.bytes->edges_begin(thread.at.place), high = leaf.bytes->edges_end(thread.at.place);
            for (u32 at = low; at < high; ++at) {
                u8 byte = leaf.bytes ? leaf.bytes->edge_byte(at) : u8(at);
                if (byte == found || !leads_somewhere(thread, byte)) continue;
                if (found >= 0) return -1;
                found = byte;
            }
        }
        return found;
    }
    bool leads_somewhere(Thread thread, u8 byte) {
        Moved moved = move(thread, byte);
        if (moved.goes_on || moved.tag < 0) return moved.goes_on;
        buffers_[1].clear();
        finish(thread, u32(moved.tag), buffers_[1]);
        return !buffers_[1].empty();
    }

    // The half of the masks that was not asked for the longest goes.
    void drop_masks() {
        std::vector<u64> times;
        for (const auto& slot : slots_)
            if (slot && !slot->mask.empty()) times.push_back(slot->used);
        if (times.empty()) return;
        std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
        u64 middle = times[times.size() / 2];
        for (auto& slot : slots_) {
            if (!slot || slot->mask.empty() || slot->used > middle) continue;
            mask_bytes_ -= slot->mask.size() * 4;
            std::vector<u32>().swap(slot->mask);
        }
    }

    // Positions that nobody holds go, and with them the frames and texts that only they needed.
    void sweep() {
        Memory fresh;
        std::vector<u32> frames(memory_.frames.size(), NONE);
        std::unordered_map<u32, u32> texts;
        index_.clear();
        held_bytes_ = 0;
        for (u32 number = 0; number < slots_.size(); ++number) {
            if (!slots_[number]) continue;
            Position& position = *slots_[number];
            if (position.holders == 0) {
                mask_bytes_ -= position.mask.size() * 4;
                slots_[number].reset();
                free_.push_back(number);
                continue;
            }
            for (Thread& thread : position.threads) {
                thread.frame = moved_frame(thread.frame, frames, texts, fresh);
                if (thread.text != NONE) thread.text = moved_text(thread.text, texts, fresh);
            }
            position.hash = hash_bytes(position.threads.data(), position.threads.size() * sizeof(Thread)) * 2 + position.complete;
            index_.emplace(position.hash, number);
            held_bytes_ += SLOT_BYTES + position.threads.size() * sizeof(Thread);
        }
        memory_ = std::move(fresh);
        viable_.clear();
        forget();
        next_sweep_ = std::max(limit_, nbytes() + nbytes() / 2);
    }
    u32 moved_text(u32 text, std::unordered_map<u32, u32>& texts, Memory& fresh) {
        auto [at, is_new] = texts.try_emplace(text, NONE);
        if (is_new) at->second = fresh.texts.add(memory_.texts.kind(text), memory_.texts.bytes(text));
        return at->second;
    }
    u32 moved_frame(u32 frame, std::vector<u32>& frames, std::unordered_map<u32, u32>& texts, Memory& fresh) {
        std::vector<u32> chain;
        for (u32 at = frame; at != NONE && frames[at] == NONE; at = memory_.frames[at].parent) chain.push_back(at);
        for (; !chain.empty(); chain.pop_back()) {
            Frame now = memory_.frames[chain.back()];
            std::vector<u32> keys;
            memory_.sets.collect(now.taken, keys);
            now.taken = Sets::EMPTY;
            for (u32 key : keys) now.taken = fresh.sets.insert(now.taken, moved_text(key, texts, fresh));
            if (now.parent != NONE) now.parent = frames[now.parent];
            frames[chain.back()] = fresh.frames.add(now);
        }
        return frames[frame];
    }
    virtual void forget() {}  // caches that know frames or texts by number

    size_t limit_, next_sweep_, held_bytes_ = 0, mask_bytes_ = 0;
    u64 clock_ = 0;
    Threads buffers_[2];
    std::vector<std::unique_ptr<Position>> slots_;
    std::vector<u32> free_;
    std::unordered_multimap<u64, u32> index_;
};

}  // namespace minillm
