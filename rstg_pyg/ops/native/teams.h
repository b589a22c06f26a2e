// How threads share the work, and the memory they work in.
//
// With a frame or more for each thread, every thread is a team of its own and takes a range of frames. With fewer, all
// threads are one team, which walks the frames together: each member has a range of nodes. Either way a result is
// summed in an order that does not depend on timing.
#pragma once

#include <cstdlib>
#include <exception>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "arguments.h"

// From this many products on, another thread is worth its start.
#ifndef GRAIN
#define GRAIN (1 << 15)
#endif
constexpr int64_t kGrain = GRAIN;

// Scores of this many bytes are walked several frames at a time, which fills the vectors with frames.
constexpr int64_t kBlockBytes = 1 << 23;

struct Team {
    int index, member, size;
    int64_t first_frame, end_frame;

    void wait() const {
        if (size > 1) {
#ifdef _OPENMP
#pragma omp barrier
#endif
        }
    }
};

struct Range {
    int64_t begin, end;
};

// Edges grouped by one of their ends: `ends` has the other one, in the order of the sorted edges. Places are walked in
// the order of `visits`, see `visit_by_node`.
struct Incidence {
    const int64_t *nodes, *ptr, *edges, *ends, *visits;

    INLINE int64_t rank(int64_t place) const { return visits != nullptr ? visits[place] : place; }
    INLINE int64_t node(int64_t rank) const { return nodes != nullptr ? nodes[rank] : rank; }
    INLINE int64_t edge(int64_t place) const { return edges != nullptr ? edges[place] : place; }
};

// A member's share of some groups; a group counts as much as its edges and one more.
inline Range share(const int64_t* ptr, Range groups, const Team& team) {
    if (team.size == 1) return groups;
    const int64_t before = ptr[groups.begin] + groups.begin, all = ptr[groups.end] + groups.end - before;
    const auto boundary = [&](int member) {
        const int64_t target = before + all * member / team.size;
        Range left = groups;
        while (left.begin < left.end) {
            const int64_t middle = (left.begin + left.end) / 2;
            if (ptr[middle] + middle < target)
                left.begin = middle + 1;
            else
                left.end = middle;
        }
        return left.begin;
    };
    return {boundary(team.member), team.member + 1 == team.size ? groups.end : boundary(team.member + 1)};
}

// Puts a range of ranks in the order of their nodes, whose neighbours' rows often lie together: those of one frame do
// where every frame has nodes of its own.
inline void visit_by_node(const int64_t* rank_of, int64_t num_nodes, Range ranks, int64_t* visits) {
    int64_t* to = visits + ranks.begin;
    for (int64_t n = 0; n < num_nodes; n++)
        if (rank_of[n] >= ranks.begin && rank_of[n] < ranks.end) *to++ = rank_of[n];
}

// Rows of so many nodes are read in place, where they need no conversion: side by side they would not fit a cache
// either. Then a few destinations take all frames of a block before the next ones do, for their neighbours' rows of
// those frames lie together. Their strips are whole vectors (`Cut::kWhole`), so that none of them is copied.
constexpr int64_t kInPlaceNodes = 128;
constexpr int64_t kRanksAtOnce = 8;

template <class T, class Sizes>
bool is_in_place(const Sizes& a, int64_t channels) {
    return Kind(a.kind) == kNative<T> && channels % kLanes<T> == 0 && a.num_nodes >= kInPlaceNodes;
}

inline Cut cut_of(bool in_place) { return in_place ? Cut::kWhole : Cut::kWide; }

// Calls `run(ranks, frame)` for parts of a range, each in all frames, where rows are in place, else for all of it.
//
// Members of a team have different numbers of parts, and may only wait for each other where rows are not in place: then
// each runs once a frame, also without ranks.
template <class Run>
INLINE void for_ranks(Range all, bool in_place, int64_t num_frames, Run run) {
    const int64_t step = in_place ? kRanksAtOnce : all.end - all.begin;
    int64_t rank = all.begin;
    do {
        const Range part{rank, rank + step < all.end ? rank + step : all.end};
        for (int64_t f = 0; f < num_frames; f++) run(part, f);
        rank = part.end;
    } while (rank < all.end);
}

// The rows of a strip, where rows are read once per edge; `heads` of them for each node, `shift` channels apart.
//
// Rows of one frame lie a node's frames apart, often a multiple of what the first-level cache calls one place: few of
// them fit it together. So those of a small graph are copied side by side, into `tile [heads, N, width]`, by all members
// of a team, which wait for each other; never where they are `in_place`.
template <class T>
class Gather {
   public:
    template <class Sizes>
    Gather(const Sizes& a, const Team& team, bool in_place, const Operand& x, const Strip<T>& strip, T* tile,
           int64_t heads = 1, int64_t shift = 0) {
        const bool fits = team.size == 1 && a.num_frames > 1 && a.num_nodes < kInPlaceNodes;
        if (in_place || (strip.is_direct() && !fits)) {
            rows_ = reinterpret_cast<const T*>(x.data) + strip.offset(x, 0);
            node_ = x.node;
            head_ = shift;
            return;
        }
        rows_ = tile;
        node_ = strip.width;
        head_ = a.num_nodes * strip.width;
        team.wait();
        for (int64_t k = 0; k < heads; k++)
            for (int64_t n = team.member; n < a.num_nodes; n += team.size) {
                T* const to = tile + k * head_ + n * node_;
                const T* const row = strip.read(x, n, to, k * shift);
                if (row != to) std::memcpy(to, row, strip.width * sizeof(T));
            }
        team.wait();
    }

    INLINE const T* at(int64_t node) const { return rows_ + node * node_; }
    INLINE const T* at(int64_t node, int64_t head) const { return rows_ + node * node_ + head * head_; }

   private:
    const T* rows_;
    int64_t node_, head_;
};

// Memory that its owner carves up front to back; every piece begins on a cache line.
class Arena {
   public:
    explicit Arena(size_t bytes) : data_(std::malloc(bytes + kLine)) {
        if (data_ == nullptr) throw std::bad_alloc();
        next_ = (reinterpret_cast<uintptr_t>(data_) + kLine - 1) / kLine * kLine;
    }

    ~Arena() { std::free(data_); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    template <class T>
    static size_t bytes(int64_t count) {
        return (size_t(count) * sizeof(T) + kLine - 1) / kLine * kLine;
    }

    template <class T>
    T* take(int64_t count) {
        T* piece = reinterpret_cast<T*>(next_);
        next_ += bytes<T>(count);
        return piece;
    }

   private:
    static constexpr size_t kLine = 64;

    void* data_;
    uintptr_t next_;
};

// As many threads as are asked for and worth it for so many products.
inline int count_threads(int64_t asked, double products) {
#ifdef _OPENMP
    const int64_t useful = 1 + int64_t(products / kGrain);
    return int(asked < useful ? asked : useful);
#else
    return 1;
#endif
}

// Calls `run(team, workspace)` on `threads` threads for frames [first, end), with a workspace per team. What a team of
// one throws is thrown here; with several members `run` must not throw, for the others would wait for ever.
template <class Workspace, class Sizes, class Run>
void on_teams(const Sizes& a, int threads, int64_t first_frame, int64_t end_frame, Run run) {
    if (threads <= 1) {
        Workspace workspace(a);
        run(Team{0, 0, 1, first_frame, end_frame}, workspace);
        return;
    }
#ifdef _OPENMP
    const int64_t frames = end_frame - first_frame;
    if (frames >= threads) {
        std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
        try {
            const int index = omp_get_thread_num(), teams = omp_get_num_threads();
            const int64_t first = frames * index / teams, end = frames * (index + 1) / teams;
            Workspace workspace(a);
            run(Team{index, 0, 1, first_frame + first, first_frame + end}, workspace);
        } catch (...) {
#pragma omp critical(rstg_failure)
            failure = std::current_exception();
        }
        if (failure) std::rethrow_exception(failure);
    } else {
        Workspace workspace(a);
#pragma omp parallel num_threads(threads)
        run(Team{0, omp_get_thread_num(), omp_get_num_threads(), first_frame, end_frame}, workspace);
    }
#endif
}
