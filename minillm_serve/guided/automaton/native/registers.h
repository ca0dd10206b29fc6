// What has been read by unique arcs: texts, sets of texts, and the frames of the call stack that hold them.
#pragma once

#include "common.h"

namespace minillm {

// Texts as paths in one tree, so that one more byte costs one node and equal texts have one number.
class Texts {
public:
    static constexpr u32 DECODED = 0, AS_BYTES = 1;  // the empty text of each kind; texts of two kinds are never equal

    Texts() {
        nodes_.add({NONE, DECODED});
        nodes_.add({NONE, AS_BYTES});
    }
    u32 add(u32 text, u8 byte) { return nodes_.add({text, byte}); }
    u32 add(u32 text, Text bytes) {
        for (char byte : bytes) text = add(text, u8(byte));
        return text;
    }
    std::string bytes(u32 text) const {
        std::string found;
        for (; nodes_[text].before != NONE; text = nodes_[text].before) found.push_back(char(nodes_[text].byte));
        std::reverse(found.begin(), found.end());
        return found;
    }
    u32 kind(u32 text) const {
        while (nodes_[text].before != NONE) text = nodes_[text].before;
        return text;
    }
    u32 size() const { return nodes_.size(); }
    u32 before(u32 text) const { return nodes_[text].before; }
    u8 last(u32 text) const { return u8(nodes_[text].byte); }
    size_t nbytes() const { return nodes_.nbytes(); }

private:
    struct Node {
        u32 before, byte;
        u64 hash() const { return mixed(before, byte); }
        bool operator==(const Node& b) const { return before == b.before && byte == b.byte; }
    };
    Interned<Node> nodes_;
};

// Sets of numbers as Patricia trees whose nodes are shared (Okasaki and Gill 1998): equal sets have one number.
class Sets {
public:
    static constexpr u32 EMPTY = NONE;

    u32 insert(u32 set, u32 key) {
        if (set == EMPTY) return nodes_.add({key, 0, NONE, NONE, 1});
        Node node = nodes_[set];
        if (node.bit == 0) return node.key == key ? set : join(set, node.key, leaf(key), key);
        if ((key & (node.bit - 1)) != node.key) return join(set, node.key, leaf(key), key);
        u32& side = key & node.bit ? node.right : node.left;
        side = insert(side, key);
        return nodes_.add({node.key, node.bit, node.left, node.right, count(node.left) + count(node.right)});
    }
    bool contains(u32 set, u32 key) const {
        while (set != EMPTY && nodes_[set].bit != 0) set = key & nodes_[set].bit ? nodes_[set].right : nodes_[set].left;
        return set != EMPTY && nodes_[set].key == key;
    }
    u32 count(u32 set) const { return set == EMPTY ? 0 : nodes_[set].count; }
    void collect(u32 set, std::vector<u32>& keys) const {
        if (set == EMPTY) return;
        if (nodes_[set].bit == 0) return keys.push_back(nodes_[set].key);
        collect(nodes_[set].left, keys);  // at most 32 deep
        collect(nodes_[set].right, keys);
    }
    size_t nbytes() const { return nodes_.nbytes(); }

private:
    // A branch on the lowest bit in which its keys differ; key: the bits below it, which they share. A leaf has bit 0.
    struct Node {
        u32 key, bit, left, right, count;
        u64 hash() const { return mixed(mixed(key, bit), u64(left) << 32 | right); }
        bool operator==(const Node& b) const {
            return key == b.key && bit == b.bit && left == b.left && right == b.right;
        }
    };
    u32 leaf(u32 key) { return nodes_.add({key, 0, NONE, NONE, 1}); }
    u32 join(u32 a, u32 key_a, u32 b, u32 key_b) {
        u32 bit = (key_a ^ key_b) & (0u - (key_a ^ key_b));
        if (key_a & bit) std::swap(a, b);
        return nodes_.add({key_a & (bit - 1), bit, a, b, count(a) + count(b)});
    }
    Interned<Node> nodes_;
};

// A call that is not over: the network's state to return to, the set of texts read by unique arcs in it, the frame
// below, and how many of those there are. The outermost frame has no parent.
struct Frame {
    u32 then, taken, parent, depth;
    u64 hash() const { return mixed(mixed(then, taken), u64(parent) << 32 | depth); }
    bool operator==(const Frame& b) const {
        return then == b.then && taken == b.taken && parent == b.parent && depth == b.depth;
    }
};

// Sorted texts, those with a common beginning side by side.
struct Words {
    std::vector<std::string> texts;

    // The rest of each text that begins with `begin`.
    void rests(Text begin, std::vector<Text>& found) const {
        auto at = std::lower_bound(texts.begin(), texts.end(), begin);
        for (; at != texts.end() && at->compare(0, begin.size(), begin) == 0; ++at)
            found.push_back(Text(*at).substr(begin.size()));
    }
};

// The stacks and registers of one machine.
class Memory {
public:
    Texts texts;
    Sets sets;
    Interned<Frame> frames;

    u32 taking(u32 frame, u32 text) {
        Frame next = frames[frame];
        next.taken = sets.insert(next.taken, text);
        return frames.add(next);
    }
    bool has_taken(u32 frame, u32 text) const { return sets.contains(frames[frame].taken, text); }
    u32 number_taken(u32 frame) const { return sets.count(frames[frame].taken); }

    // What a set holds of one kind. A few are kept: one is asked for at every byte of an item.
    const Words& words(u32 set, u32 kind) {
        for (auto& [key, held] : views_)
            if (key == std::pair(set, kind)) return *held;
        if (views_.size() >= 8) views_.erase(views_.begin());
        auto view = std::make_unique<Words>();
        std::vector<u32> keys;
        sets.collect(set, keys);
        for (u32 key : keys)
            if (texts.kind(key) == kind) view->texts.push_back(texts.bytes(key));
        std::sort(view->texts.begin(), view->texts.end());
        views_.emplace_back(std::pair(set, kind), std::move(view));
        return *views_.back().second;
    }
    size_t nbytes() const { return texts.nbytes() + sets.nbytes() + frames.nbytes(); }

private:
    std::vector<std::pair<std::pair<u32, u32>, std::unique_ptr<Words>>> views_;
};

}  // namespace minillm
