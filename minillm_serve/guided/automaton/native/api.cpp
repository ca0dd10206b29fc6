// What native.py calls: a plain C interface over vocabularies and machines.
//
// Calls on one machine must not overlap. A negative answer is a Failure, or says that there is no such position (-1).
#include "masks.h"

using namespace minillm;

namespace {

constexpr i32 NO_POSITION = -1;

template <class F>
i32 guarded(Machine* machine, F f) {
    try {
        return f();
    } catch (Failure failure) {
        machine->failed();
        return i32(failure);
    } catch (const std::bad_alloc&) {
        machine->failed();
        return i32(Failure::memory);
    }
}

i32 number(u32 position) { return position == NONE ? NO_POSITION : i32(position); }

Leaf leaf_of(u32 at, std::unique_ptr<ByteLeaf> bytes, std::unique_ptr<TextLeaf> text) {
    Leaf leaf;
    leaf.number = at;
    leaf.bytes = std::move(bytes);
    leaf.text = std::move(text);
    return leaf;
}

std::vector<Text> split(const char* joined, const i32* offsets, i32 count) {
    std::vector<Text> found;
    for (i32 i = 0; i < count; ++i) found.push_back(Text(joined + offsets[i], size_t(offsets[i + 1] - offsets[i])));
    return found;
}

}  // namespace

extern "C" {

Vocab* minillm_vocab(i32 size, i32 nodes, const u8* byte, const i32* depth, const i32* skip, const i32* first,
                     const i32* tokens, const u8* alphabet, const char* joined, const i32* offsets, const i32* eos, i32 eos_count) {
    Trie trie{u32(nodes), byte, depth, skip, first, tokens};
    return new Vocab(trie, u32(size), alphabet, joined, offsets, std::vector<u32>(eos, eos + eos_count));
}
// What holds in any string, from a file or made anew. Answers with 0 if the data is of no use.
i32 minillm_vocab_load(Vocab* vocab, const u8* data, i64 size) {
    return vocab->load(data, size_t(size));
}
void minillm_vocab_prepare(Vocab* vocab) { vocab->prepare(); }
// Answers with the number of bytes; they are written only if there is room for them.
i64 minillm_vocab_save(const Vocab* vocab, u8* out, i64 room) {
    std::vector<u8> data = vocab->saved();
    if (i64(data.size()) <= room) std::copy(data.begin(), data.end(), out);
    return i64(data.size());
}
void minillm_vocab_free(Vocab* vocab) { delete vocab; }

Machine* minillm_machine(const Vocab* vocab, i32 max_depth, Net::Expand expand, Net::Cost cost, i64 limit) {
    return new Machine(*vocab, u32(max_depth), expand, cost, size_t(limit));
}
void minillm_machine_free(Machine* machine) { delete machine; }

// -- leaves and arcs, called while a state is expanded; all answer with the number of the leaf ---------------------

i32 minillm_add_literals(Machine* machine, i32 at, const char* joined, const i32* offsets, const i32* tags, i32 count) {
    return guarded(machine, [&] {
        auto leaf = ByteLeaf::of_literals(split(joined, offsets, count), tags, machine->alphabet());
        return i32(machine->add_leaf(leaf_of(u32(at), std::make_unique<ByteLeaf>(std::move(leaf)), nullptr)));
    });
}
// edges: triples (state, byte, next state).
i32 minillm_add_bytes(Machine* machine, i32 at, const i32* edges, i32 count, const i32* tags, i32 states, i32 start) {
    return guarded(machine, [&] {
        std::vector<ByteLeaf::Edge> found;
        for (const i32 *edge = edges, *end = edges + size_t(count) * 3; edge < end; edge += 3)
            found.push_back({u32(edge[0]), u32(edge[2]), u8(edge[1])});
        auto leaf = std::make_unique<ByteLeaf>(std::vector<i32>(tags, tags + states), found, u32(start), machine->alphabet(), true);
        return i32(machine->add_leaf(leaf_of(u32(at), std::move(leaf), nullptr)));
    });
}
// states: 0 for a leaf that accepts every text. high: -1 for no limit. excluded: sorted.
i32 minillm_add_text(Machine* machine, i32 at, const i32* bounds, const i32* classes, i32 intervals, const i32* rows,
                     const i32* tags, i32 states, i32 class_count, i32 low, i32 high, i32 quoted, const char* joined,
                     const i32* offsets, i32 count) {
    return guarded(machine, [&] {
        TextLeaf::Chars chars{{0}, {0}, {1, 1, {0}, {0}}};
        if (states) {
            chars.bounds.assign(bounds, bounds + intervals);
            chars.classes.assign(classes, classes + intervals);
            chars.rows = {u32(states), u32(class_count), std::vector<i32>(rows, rows + size_t(states) * class_count),
                          std::vector<i32>(tags, tags + states)};
        }
        std::vector<std::string> excluded;
        for (Text text : split(joined, offsets, count)) excluded.emplace_back(text);
        auto leaf = std::make_unique<TextLeaf>(std::move(chars), states == 0, u32(low), high < 0 ? NONE : u32(high),
                                               quoted != 0, std::move(excluded), machine->alphabet());
        return i32(machine->add_leaf(leaf_of(u32(at), nullptr, std::move(leaf))));
    });
}
i32 minillm_set_arcs(Machine* machine, i32 state, const i32* data, i64 size) {
    return guarded(machine, [&] { return machine->set_arcs(u32(state), data, size_t(size)), 0; });
}

// -- positions -----------------------------------------------------------------------------------------------------

i32 minillm_start(Machine* machine, i32 state) {
    return guarded(machine, [&] { return number(machine->start(u32(state))); });
}
i32 minillm_advance(Machine* machine, i32 position, const u8* data, i64 size) {
    return guarded(machine, [&] { return number(machine->advance(u32(position), data, size_t(size))); });
}
i32 minillm_complete(Machine* machine, i32 position) { return machine->complete(u32(position)); }

// budget: -1 for none.
i32 minillm_fill(Machine* machine, i32 position, u32* out, i32 budget) {
    return guarded(machine, [&] {
        if (budget < 0) machine->fill(u32(position), out);
        else machine->fill_within(u32(position), u32(budget), out);
        return 0;
    });
}
// Answers with how many bytes have been written to `out`.
i32 minillm_forced(Machine* machine, i32 position, u8* out, i32 limit) {
    return guarded(machine, [&] {
        std::string found = machine->forced(u32(position), size_t(limit));
        std::copy(found.begin(), found.end(), out);
        return i32(found.size());
    });
}
i32 minillm_cost(Machine* machine, i32 position) {
    return guarded(machine, [&] { return i32(machine->cost(u32(position))); });
}
void minillm_release(Machine* machine, const i32* positions, i32 count) {
    for (i32 i = 0; i < count; ++i) machine->release(u32(positions[i]));
}
i64 minillm_nbytes(Machine* machine) { return i64(machine->nbytes()); }

// How many threads there are; of thread `at`, into `out` (room for `size` numbers): leaf, place, state, count, how many
// targets, the targets, how many frames, where they return to (as far as there is room).
i32 minillm_thread(Machine* machine, i32 position, i32 at, i32* out, i32 size) {
    const std::vector<Thread>& threads = machine->threads(u32(position));
    if (u32(at) >= threads.size()) return i32(threads.size());
    const Thread& thread = threads[u32(at)];
    const std::vector<u32>& targets = machine->read_of(thread).targets;
    std::vector<u32> frames = machine->returns(thread), found;
    found = {machine->leaf_at(thread).number, thread.at.place, thread.at.state, thread.at.count, u32(targets.size())};
    found.insert(found.end(), targets.begin(), targets.end());
    found.push_back(u32(frames.size()));
    found.insert(found.end(), frames.begin(), frames.end());
    std::copy(found.begin(), found.begin() + std::min<size_t>(found.size(), size_t(size)), out);
    return i32(threads.size());
}

}  // extern "C"
