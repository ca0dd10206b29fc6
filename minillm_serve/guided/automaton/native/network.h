// The transition network as far as it has been reached: its arcs and leaves are asked for when first needed.
#pragma once

#include "around.h"

namespace minillm {

constexpr u32 RETURN = 0;
constexpr u32 MAX_RESTRICTED = 16;  // arcs with more targets are never restricted

enum class ArcKind : u32 { read, call, jump };

struct Arc {
    ArcKind kind;
    u32 target;  // the number of a Read, the entry of a call, where a jump leads
    u32 then;
    u32 height;
};

// A leaf of either kind; just one pointer is set.
struct Leaf {
    std::unique_ptr<ByteLeaf> bytes;
    std::unique_ptr<TextLeaf> text;
    u32 number;  // in the network
    std::vector<u32> plain;  // distances of a byte leaf, once asked for

    size_t nbytes() const { return plain.size() * 4 + (bytes ? bytes->nbytes() : text->nbytes()); }
};

// Read a leaf, then go to targets[tag].
struct Read {
    u32 leaf;
    bool unique;
    std::vector<u32> targets;
    // Distances with what comes after each tag, once asked for: of a byte leaf, of a text leaf.
    std::unique_ptr<std::vector<u32>> byte_costs;
    std::unique_ptr<Distances> text_costs;
    std::vector<u32> weights;
};

class Net {
public:
    // expand(state) hands over the arcs with set_arcs; both return a negative number to give up.
    using Expand = i32 (*)(i32 state);
    using Cost = i32 (*)(i32 state);

    Net(const Alphabet& alphabet, u32 max_depth, Expand expand, Cost cost)
        : alphabet_(alphabet), max_depth_(max_depth), expand_(expand), cost_(cost) {}

    u32 add_leaf(Leaf leaf) {
        leaves_.push_back(std::move(leaf));
        leaf_bytes_ += leaves_.back().nbytes();
        return u32(leaves_.size() - 1);
    }
    // data, for each arc: kind, height, then leaf, unique, number of targets, targets | entry, then | target.
    void set_arcs(u32 state, const i32* data, size_t size) {
        auto arcs = std::make_unique<std::vector<Arc>>();
        for (const i32 *at = data, *end = data + size; at < end;) {
            Arc arc{ArcKind(at[0]), 0, 0, u32(at[1])};
            at += 2;
            if (arc.kind == ArcKind::read) {
                arc.target = add_read(u32(at[0]), at[1] != 0, std::vector<u32>(at + 3, at + 3 + at[2]));
                at += 3 + at[2];
            } else {
                arc.target = u32(*at++);
                if (arc.kind == ArcKind::call) arc.then = u32(*at++);
            }
            arcs->push_back(arc);
        }
        if (state >= arcs_.size()) arcs_.resize(state + 64);
        arcs_[state] = std::move(arcs);
    }

protected:
    const std::vector<Arc>& arcs(u32 state) {
        if (state >= arcs_.size() || !arcs_[state])
            if (expand_(i32(state)) < 0) throw Failure::callback;
        return *arcs_[state];
    }
    Read& read(u32 number) { return reads_[number]; }
    Leaf& leaf_of(u32 number) { return leaves_[reads_[number].leaf]; }
    u32 max_depth() const { return max_depth_; }

    // Bytes of the shortest text from a state to RETURN.
    u32 state_cost(u32 state) {
        if (state == RETURN) return 0;
        if (state >= costs_.size()) costs_.resize(state + 64, NONE);
        if (costs_[state] == NONE) {
            i32 found = cost_(i32(state));
            if (found < 0) throw Failure::callback;
            costs_[state] = std::min(u32(found), FAR);
        }
        return costs_[state];
    }
    const std::vector<u32>& weights(Read& read) {
        if (read.weights.empty())
            for (u32 target : read.targets) read.weights.push_back(state_cost(target));
        return read.weights;
    }
    const std::vector<u32>& byte_costs(Read& read) {
        if (!read.byte_costs)
            read.byte_costs = std::make_unique<std::vector<u32>>(leaves_[read.leaf].bytes->distances(weights(read).data()));
        return *read.byte_costs;
    }
    const Distances& text_costs(Read& read) {
        if (!read.text_costs) {
            const TextLeaf& leaf = *leaves_[read.leaf].text;
            read.text_costs = std::unique_ptr<Distances>(new Distances(leaf.weighted(weights(read).data())));
        }
        return *read.text_costs;
    }
    const std::vector<u32>& plain(Leaf& leaf) {
        if (leaf.plain.empty()) leaf.plain = leaf.bytes->distances(nullptr);
        return leaf.plain;
    }

    // The same read without the tags whose bit in `dead` is set.
    u32 restricted(u32 number, u32 dead) {
        auto [at, is_new] = restricted_.try_emplace(u64(number) << 32 | dead, NONE);
        if (!is_new) return at->second;
        const Read& read = reads_[number];
        const Leaf& leaf = leaves_[read.leaf];
        std::vector<bool> tags(read.targets.size());
        for (u32 tag = 0; tag < tags.size(); ++tag) tags[tag] = dead >> tag & 1;
        Leaf less;
        less.number = leaf.number;
        if (leaf.bytes) less.bytes.reset(new ByteLeaf(leaf.bytes->without(tags)));
        else less.text.reset(new TextLeaf(leaf.text->without(tags)));
        bool unique = read.unique;
        std::vector<u32> targets = read.targets;
        return at->second = add_read(add_leaf(std::move(less)), unique, std::move(targets));
    }
    size_t net_bytes() const {
        return leaf_bytes_ + reads_.size() * 160 + arcs_.size() * 8 + arcs_.size() / 2 * 48 + costs_.size() * 4;
    }

private:
    // Equal reads have one number, so that threads on them are equal.
    u32 add_read(u32 leaf, bool unique, std::vector<u32> targets) {
        u64 hash = mixed(hash_bytes(targets.data(), targets.size() * 4), u64(leaf) << 1 | unique);
        for (auto [at, end] = known_.equal_range(hash); at != end; ++at) {
            const Read& read = reads_[at->second];
            if (read.leaf == leaf && read.unique == unique && read.targets == targets) return at->second;
        }
        reads_.push_back({leaf, unique, std::move(targets), nullptr, nullptr, {}});
        known_.emplace(hash, u32(reads_.size() - 1));
        return u32(reads_.size() - 1);
    }

    const Alphabet& alphabet_;
    u32 max_depth_;
    Expand expand_;
    Cost cost_;
    std::deque<Leaf> leaves_;
    std::deque<Read> reads_;
    std::vector<std::unique_ptr<std::vector<Arc>>> arcs_;
    std::vector<u32> costs_;
    std::unordered_multimap<u64, u32> known_;
    std::unordered_map<u64, u32> restricted_;
    size_t leaf_bytes_ = 0;
};

}  // namespace minillm
