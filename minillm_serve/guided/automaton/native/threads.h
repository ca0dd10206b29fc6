// Threads: the readings of one text, moved on byte by byte. Only threads that can be completed are ever made.
#pragma once

#include "network.h"
#include "thread.h"

namespace minillm {

class Runner : public Net {
public:
    using Net::Net;

protected:
    // What a byte does to one thread: it goes on, and its leaf may be over with a tag (-1: it is not).
    struct Moved {
        bool goes_on;
        i32 tag;
    };

    Moved move(Thread& thread, u8 byte) {
        const Read& read = this->read(thread.read);
        Leaf& leaf = leaf_of(thread.read);
        if (leaf.text) return move_text(thread, byte, read, *leaf.text);
        thread.at.place = leaf.bytes->step(thread.at.place, byte);
        if (thread.at.place == NONE) return {false, -1};
        if (!read.unique) return {leaf.bytes->has_edges(thread.at.place), leaf.bytes->tag(thread.at.place)};
        thread.text = memory_.texts.add(thread.text, byte);
        return open(thread) ? arrived(thread) : Moved{false, -1};
    }

    void step(const std::vector<Thread>& from, u8 byte, Threads& to) {
        to.clear();
        for (const Thread& thread : from) {
            Thread next = thread;
            Moved moved = move(next, byte);
            if (moved.goes_on) add(to, next);
            if (moved.tag >= 0) finish(next, u32(moved.tag), to);
        }
        tidy(to);
    }

    // What comes once the thread's leaf is over.
    void finish(const Thread& thread, u32 tag, Threads& to) {
        u32 target = read(thread.read).targets[tag], frame = thread.frame;
        if (read(thread.read).unique) {
            frame = memory_.taking(frame, thread.text);
            if (!viable(target, frame)) return;
        }
        close(target, frame, to);
    }

    // Follow what reads nothing, until a leaf stands on top of every stack or the stack is empty.
    void close(u32 state, u32 frame, Threads& to) {
        size_t base = pending_.size();
        Seen seen;
        pending_.push_back({state, frame, false});
        while (pending_.size() > base) {
            Pending next = pending_.back();
            pending_.pop_back();
            if (next.is_read) {
                begin(next.what, next.frame, to);
            } else if (next.what == RETURN) {
                Frame over = memory_.frames[next.frame];
                if (over.parent == NONE) to.complete = true;
                else pending_.push_back({over.then, over.parent, false});
            } else if (seen.add(next.what, next.frame)) {
                const std::vector<Arc>& found = arcs(next.what);
                for (size_t i = found.size(); i-- > 0;) follow(found[i], next.frame);
            }
        }
    }

    u32 outermost() { return memory_.frames.add({RETURN, Sets::EMPTY, NONE, 0}); }

    // Bytes of the shortest completion of one reading.
    u32 thread_cost(const Thread& thread) {
        Read& read = this->read(thread.read);
        Leaf& leaf = leaf_of(thread.read);
        u32 found;
        if (leaf.bytes) {
            const std::vector<u32>& table = byte_costs(read);
            found = table[thread.at.place];
            if (read.unique && memory_.number_taken(thread.frame)) {
                Rests rests = forbidden(thread);
                if (!rests.empty()) found = way_around(*leaf.bytes, thread.at.place, rests, table, weights(read).data(), false);
            }
        } else {
            Rests rests = forbidden(thread);
            if (rests.empty()) found = leaf.text->plain_cost(thread.at, text_costs(read));
            else found = TextSearch(*leaf.text, rests, text_costs(read), false).run(thread.at);
        }
        u64 total = found;
        for (u32 at = thread.frame; memory_.frames[at].parent != NONE && total < FAR; at = memory_.frames[at].parent)
            total += state_cost(memory_.frames[at].then);
        return u32(std::min<u64>(total, FAR));
    }

    // While a frame is watched, `touched_` tells whether what it has taken was asked for.
    void watch(u32 frame) {
        watched_ = frame;
        touched_ = false;
    }

    Memory memory_;
    bool pruned_ = false;  // some position was cut to MAX_THREADS
    bool touched_ = false;
    std::unordered_map<u64, bool> viable_;

    void tidy(Threads& threads) {
        drop_copies(threads.items);
        if (threads.items.size() <= MAX_THREADS) return;
        threads.items.resize(MAX_THREADS);
        threads.full = pruned_ = true;
    }
    void give_up() { pending_.clear(); }  // after a failure

    // What the thread may not read, without what it has read.
    Rests forbidden(const Thread& thread) {
        const Leaf& leaf = leaf_of(thread.read);
        Rests excluded, taken;
        u32 end = leaf.text && thread.at.word != NONE ? leaf.text->words_end(thread.at) : 0;
        if (end != 0)
            for (u32 word = thread.at.word; word < end; ++word)
                excluded.push_back(Text(leaf.text->excluded()[word]).substr(thread.at.depth));
        if (read(thread.read).unique && memory_.number_taken(thread.frame)) {
            u32 set = memory_.frames[thread.frame].taken;
            const Words& words = memory_.words(set, leaf.text ? Texts::DECODED : Texts::AS_BYTES);
            words.rests(memory_.texts.bytes(thread.text), taken);
        }
        return taken.empty() ? excluded : excluded.empty() ? taken : merged(excluded, taken);
    }

    // Does a way lead on from `state` to the end of the frame or to a unique leaf that has a text left? Only what the
    // frame has taken can close a way that the network promises.
    bool viable(u32 state, u32 frame) {
        bool watched = frame == watched_;
        if (state == RETURN || (memory_.frames[frame].taken == Sets::EMPTY && !watched)) return true;
        u64 key = u64(state) << 32 | frame;
        if (auto known = viable_.find(key); known != viable_.end() && !watched) return known->second;
        bool found = false;
        u32 depth = memory_.frames[frame].depth;
        std::vector<u32> queue{state};
        for (size_t at = 0; at < queue.size() && !found; ++at) {
            if (queue[at] == RETURN || at > MAX_LOOKAHEAD) {
                found = true;
                break;
            }
            for (const Arc& arc : arcs(queue[at]))
                if (depth + arc.height <= max_depth()) found = found || leads_on(arc, frame, queue);
        }
        if (watched) return found;
        if (viable_.size() > MAX_VIABLE) viable_.clear();
        viable_[key] = found;
        return found;
    }
private:
    struct Pending {
        u32 what, frame;  // the number of a state or of a read
        bool is_read;
    };

    Moved move_text(Thread& thread, u8 byte, const Read& read, const TextLeaf& leaf) {
        Decoded found = decode(thread.at.place, byte, leaf.quoted());
        switch (found.event) {
            case Event::dead: return {false, -1};
            case Event::closed: return {false, is_forbidden(thread, read, leaf) ? -1 : leaf.end(thread.at)};
            case Event::opened:
                thread.at.place = AT_BODY;
                return {true, -1};  // the thread was live, and its leaf begins with the quote
            case Event::place:
                thread.at.place = found.value;
                return {open(thread), -1};
            case Event::letter: break;
        }
        if (!leaf.read(thread.at, found.value)) return {false, -1};
        if (read.unique) {
            char bytes[4];
            thread.text = memory_.texts.add(thread.text, Text(bytes, utf8_put(found.value, bytes)));
        }
        if (!open(thread)) return {false, -1};
        return leaf.quoted() ? Moved{true, -1} : arrived(thread);
    }

    // The thread has come to a live state, between two characters.
    Moved arrived(const Thread& thread) {
        const Read& read = this->read(thread.read);
        Leaf& leaf = leaf_of(thread.read);
        if (leaf.text) return {goes_on(thread), is_forbidden(thread, read, *leaf.text) ? -1 : leaf.text->end(thread.at)};
        bool taken = read.unique && memory_.has_taken(thread.frame, thread.text);
        return {goes_on(thread), taken ? -1 : leaf.bytes->tag(thread.at.place)};
    }

    bool is_forbidden(const Thread& thread, const Read& read, const TextLeaf& leaf) {
        return leaf.is_excluded(thread.at) || (read.unique && memory_.has_taken(thread.frame, thread.text));
    }

    bool goes_on(const Thread& thread) {
        Leaf& leaf = leaf_of(thread.read);
        if (leaf.text) {
            if (leaf.text->quoted() || thread.at.place != AT_BODY || leaf.text->roomy(thread.at, bound(thread))) return true;
            for (u32 byte = 0; byte < 256; ++byte)
                if (can_move(thread, u8(byte))) return true;
            return false;
        }
        u32 state = thread.at.place;
        if (bound(thread) == 0) return leaf.bytes->has_edges(state);
        for (u32 edge = leaf.bytes->edges_begin(state); edge < leaf.bytes->edges_end(state); ++edge)
            if (can_move(thread, leaf.bytes->edge_byte(edge))) return true;
        return false;
    }
    bool can_move(Thread thread, u8 byte) {
        const Leaf& leaf = leaf_of(thread.read);
        if (leaf.text) {
            Moved moved = move_text_once(thread, byte, *leaf.text);
            return moved.goes_on;
        }
        thread.at.place = leaf.bytes->step(thread.at.place, byte);
        thread.text = memory_.texts.add(thread.text, byte);
        return thread.at.place != NONE && open(thread);
    }
    // Is the thread of a bare text live after the byte? (Not whether it then goes on.)
    Moved move_text_once(Thread& thread, u8 byte, const TextLeaf& leaf) {
        Decoded found = decode(thread.at.place, byte, leaf.quoted());
        if (found.event == Event::place) thread.at.place = found.value;
        else if (found.event != Event::letter || !leaf.read(thread.at, found.value)) return {false, -1};
        char bytes[4];
        if (found.event == Event::letter && read(thread.read).unique)
            thread.text = memory_.texts.add(thread.text, Text(bytes, utf8_put(found.value, bytes)));
        return {open(thread), -1};
    }

    // How many texts the thread may not read, at most.
    u32 bound(const Thread& thread) {
        const Leaf& leaf = leaf_of(thread.read);
        u32 excluded = leaf.text && thread.at.word != NONE ? u32(leaf.text->excluded().size()) : 0;
        return excluded + (read(thread.read).unique ? memory_.number_taken(thread.frame) : 0);
    }
    // Can the thread's leaf be completed?
    bool open(const Thread& thread) {
        Leaf& leaf = leaf_of(thread.read);
        if (leaf.text && !leaf.text->live(thread.at)) return false;
        u32 most = bound(thread);
        if (most == 0 || (leaf.text ? leaf.text->roomy(thread.at, most) : leaf.bytes->roomy(thread.at.place, most))) return true;
        Rests rests = forbidden(thread);
        if (rests.empty()) return true;
        if (leaf.bytes) return way_around(*leaf.bytes, thread.at.place, rests, plain(leaf), nullptr, true) < FAR;
        return TextSearch(*leaf.text, rests, leaf.text->lives(), true).run(thread.at) < FAR;
    }

    void follow(const Arc& arc, u32 frame) {
        Frame now = memory_.frames[frame];
        if (now.depth + arc.height > max_depth()) return;
        if (arc.kind == ArcKind::read) return pending_.push_back({arc.target, frame, true});
        if (arc.kind == ArcKind::call) {
            if (arc.then == RETURN) {
                frame = memory_.frames.add({now.then, Sets::EMPTY, now.parent, now.depth});
            } else {
                if (!viable(arc.then, frame)) return;
                frame = memory_.frames.add({arc.then, Sets::EMPTY, frame, now.depth + 1});
            }
        }
        pending_.push_back({arc.target, frame, false});
    }

    // A leaf begins: its thread; and what comes after it, if the empty text is one of the leaf's.
    void begin(u32 number, u32 frame, Threads& to) {
        if (!read(number).unique) number = without_dead_ends(number, frame);
        if (number == NONE) return;
        Thread thread = first(number, frame);
        const Leaf& leaf = leaf_of(number);
        if (read(number).unique && frame == watched_) touched_ = true;
        if (!can_begin(thread)) return;
        Moved moved = leaf.text && leaf.text->quoted() ? Moved{true, -1} : arrived(thread);
        if (moved.goes_on) add(to, thread);
        if (moved.tag < 0) return;
        u32 target = read(number).targets[u32(moved.tag)];
        if (read(number).unique) {
            frame = memory_.taking(frame, thread.text);
            if (!viable(target, frame)) return;
        }
        pending_.push_back({target, frame, false});
    }
    Thread first(u32 number, u32 frame) {
        const Leaf& leaf = leaf_of(number);
        Thread thread{number, leaf.text ? leaf.text->start() : TextState{leaf.bytes->start(), 0, 0, NONE, 0}, NONE, frame};
        if (read(number).unique) thread.text = leaf.text ? Texts::DECODED : Texts::AS_BYTES;
        return thread;
    }

    bool can_begin(const Thread& thread) {
        const Leaf& leaf = leaf_of(thread.read);
        return (leaf.text || leaf.bytes->is_live()) && open(thread);
    }

    // A leaf that leads to several states, of which some have no way on in this frame, must not end there.
    u32 without_dead_ends(u32 number, u32 frame) {
        if (memory_.frames[frame].taken == Sets::EMPTY && frame != watched_) return number;
        const Read& read = this->read(number);
        u32 dead = 0;
        if (read.targets.size() > MAX_RESTRICTED) return number;
        for (u32 tag = 0; tag < read.targets.size(); ++tag) dead |= u32(!viable(read.targets[tag], frame)) << tag;
        if (dead + 1 == 1u << read.targets.size()) return NONE;
        return dead ? restricted(number, dead) : number;
    }

    bool leads_on(const Arc& arc, u32 frame, std::vector<u32>& queue) {
        auto later = [&](u32 state) {
            if (std::find(queue.begin(), queue.end(), state) == queue.end()) queue.push_back(state);
        };
        if (arc.kind != ArcKind::read) {
            later(arc.kind == ArcKind::call ? arc.then : arc.target);
            return false;
        }
        if (read(arc.target).unique) {
            if (frame == watched_) touched_ = true;
            return can_begin(first(arc.target, frame));
        }
        if (read(arc.target).targets.size() > MAX_RESTRICTED) return true;
        for (u32 target : read(arc.target).targets) later(target);
        return false;
    }

    // Copies are dropped at the end of a step, or when there are too many threads.
    void add(Threads& to, const Thread& thread) {
        if (to.full) return;
        to.items.push_back(thread);
        if (to.items.size() >= 2 * MAX_THREADS) tidy(to);
    }

    static constexpr size_t MAX_LOOKAHEAD = 64, MAX_VIABLE = 1 << 16;
    std::vector<Pending> pending_;
    u32 watched_ = NONE;
};

}  // namespace minillm
