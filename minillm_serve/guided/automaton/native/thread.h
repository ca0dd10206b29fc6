// A thread is one reading of a text; this is what it consists of, and how sets of them are kept.
#pragma once

#include "registers.h"
#include "text_leaf.h"

namespace minillm {

constexpr u32 MAX_THREADS = 4096;  // of one position; the last that come are dropped, which is sound

// One reading: a place in the leaf of `read`, what a unique arc has read so far, and the frames to return to. In a byte
// leaf `at.place` is the state.
struct Thread {
    u32 read;
    TextState at;
    u32 text, frame;
    bool operator==(const Thread& b) const { return std::memcmp(this, &b, sizeof b) == 0; }
    u64 hash() const { return hash_bytes(this, sizeof *this); }
};
static_assert(sizeof(Thread) == 32, "threads are compared as bytes");

struct Threads {
    std::vector<Thread> items;
    bool complete = false;  // the text may end here
    bool full = false;
    bool empty() const { return items.empty() && !complete; }
    void clear() {
        items.clear();
        complete = full = false;
    }
};

// The first of each stays where it is.
inline void drop_copies(std::vector<Thread>& threads) {
    if (threads.size() < 2) return;
    if (threads.size() < 24) {
        size_t kept = 1;
        for (size_t i = 1; i < threads.size(); ++i) {
            bool known = false;
            for (size_t j = 0; j < kept && !known; ++j) known = threads[j] == threads[i];
            if (!known) threads[kept++] = threads[i];
        }
        return threads.resize(kept);
    }
    Interned<Thread> order;
    for (const Thread& thread : threads) order.add(thread);
    for (u32 i = 0; i < order.size(); ++i) threads[i] = order[i];
    threads.resize(order.size());
}

// The states met while one closure is made: nearly always few.
struct Seen {
    std::vector<u64> few;
    std::unordered_map<u64, bool> many;
    bool add(u32 state, u32 frame) {
        u64 key = u64(state) << 32 | frame;
        if (few.size() == 32) return many.try_emplace(key, true).second && !known(key);
        if (known(key)) return false;
        few.push_back(key);
        return true;
    }
    bool known(u64 key) const { return std::find(few.begin(), few.end(), key) != few.end(); }
};

}  // namespace minillm
