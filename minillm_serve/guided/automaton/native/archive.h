// Flat arrays written one after the other, and read back with every length checked; a checksum stands in front.
#pragma once

#include "common.h"

namespace minillm {

class Writer {
public:
    template <class T>
    void put(const std::vector<T>& values) {
        static_assert(std::is_trivially_copyable_v<T>);
        u64 size = values.size() * sizeof(T);
        append(&size, sizeof size);
        append(values.data(), size);
    }
    void put(u64 value) { append(&value, sizeof value); }
    std::vector<u8> done() {
        u64 sum = hash_bytes(data_.data() + sizeof sum, data_.size() - sizeof sum);
        std::memcpy(data_.data(), &sum, sizeof sum);
        return std::move(data_);
    }

private:
    void append(const void* from, size_t size) {
        const u8* at = static_cast<const u8*>(from);
        data_.insert(data_.end(), at, at + size);
    }
    std::vector<u8> data_ = std::vector<u8>(sizeof(u64));
};

class Reader {
public:
    Reader(const u8* data, size_t size) : at_(data), left_(size) {
        u64 sum = 0;
        get(sum);
        good_ = good_ && sum == hash_bytes(at_, left_);
    }
    template <class T>
    void get(std::vector<T>& values) {
        u64 size = 0;
        get(size);
        good_ = good_ && size <= left_ && size % sizeof(T) == 0;
        values.resize(good_ ? size / sizeof(T) : 0);
        take(values.data(), values.size() * sizeof(T));
    }
    void get(u64& value) { take(&value, sizeof value); }
    bool good() const { return good_; }
    bool finished() const { return good_ && left_ == 0; }

private:
    void take(void* to, size_t size) {
        good_ = good_ && size <= left_;
        if (!good_ || size == 0) return;
        std::memcpy(to, at_, size);
        at_ += size;
        left_ -= size;
    }
    const u8* at_;
    size_t left_;
    bool good_ = true;
};

}  // namespace minillm
