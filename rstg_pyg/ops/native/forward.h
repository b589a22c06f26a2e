// The forward pass: weights of the edges, then their weighted sums.
#pragma once

#include <vector>

#include "sums.h"

inline int64_t padded(int64_t channels, int64_t multiple) { return (channels + multiple - 1) / multiple * multiple; }

// How many frames share the vectors that hold scores.
template <class T>
int64_t frames_per_block(const Arguments& a) {
    const int64_t wanted = a.heads < kLaneStrip ? kLaneStrip / a.heads : 1;
    const bool fits = a.num_edges * wanted * a.heads * int64_t(sizeof(T)) <= kBlockBytes;
    const int64_t frames = fits ? wanted : 1;
    return frames < a.num_frames ? frames : a.num_frames;
}

// Calls `run(first_frame, number of frames)` for the blocks of a team. All members end one before any begins the next,
// for a shorter one lays out the same room in another way.
template <class T, class Run>
void for_blocks(const Arguments& a, const Team& team, Run run) {
    const int64_t step = frames_per_block<T>(a);
    for (int64_t frame = team.first_frame; frame < team.end_frame; frame += step) {
        if (frame > team.first_frame) team.wait();
        run(frame, frame + step <= team.end_frame ? step : team.end_frame - frame);
    }
}

// The lanes of a block: in the tensor [E, F, K] where the block has all frames, else in `room`.
template <class T>
Lanes<T> lanes_of_block(const Arguments& a, void* tensor, T* room, int64_t num_frames) {
    if (tensor != nullptr && num_frames == a.num_frames) return {static_cast<T*>(tensor), num_frames * a.heads};
    return {room, num_frames * a.heads};
}

template <class T>
void copy_in(const Arguments& a, Lanes<T> lanes, const void* tensor, int64_t first_frame, Range edges) {
    if (lanes.data == tensor) return;
    for (int64_t e = edges.begin; e < edges.end; e++) {
        const T* from = static_cast<const T*>(tensor) + (e * a.num_frames + first_frame) * a.heads;
        for (int64_t l = 0; l < lanes.count; l++) lanes.edge(e)[l] = from[l];
    }
}

template <class T>
void copy_out(const Arguments& a, Lanes<T> lanes, void* tensor, int64_t first_frame, Range edges) {
    if (lanes.data == tensor) return;
    for (int64_t e = edges.begin; e < edges.end; e++) {
        T* to = static_cast<T*>(tensor) + (e * a.num_frames + first_frame) * a.heads;
        for (int64_t l = 0; l < lanes.count; l++) to[l] = lanes.edge(e)[l];
    }
}

template <class T>
struct ForwardSpace {
    static constexpr int lanes = kLanes<T>;
    int64_t score_width, row_size, num_scores, tile_size;
    Arena arena;
    T *scores, *tile, *row;
    int64_t* visits;

    explicit ForwardSpace(const Arguments& a)
        : score_width(padded(a.width, lanes)),
          row_size(score_width),
          num_scores(a.num_edges * frames_per_block<T>(a) * a.heads),
          tile_size(a.num_nodes * (score_width > 4 * lanes ? score_width : 4 * lanes)),
          arena(Arena::bytes<T>(num_scores) + Arena::bytes<T>(tile_size) + a.threads * Arena::bytes<T>(row_size) +
                Arena::bytes<int64_t>(a.num_nodes)),
          scores(arena.take<T>(num_scores)),
          tile(arena.take<T>(tile_size)),
          row(arena.take<T>(a.threads * row_size)),
          visits(arena.take<int64_t>(a.num_nodes)) {}
};

// The incoming edges, and the rank of every node.
class Incoming {
   public:
    explicit Incoming(const Arguments& a) : ranks_(a.num_nodes), incidence_{a.nodes, a.ptr, nullptr, a.sources, nullptr} {
        for (int64_t rank = 0; rank < a.num_nodes; rank++) ranks_[a.nodes[rank]] = rank;
    }

    // Those of a member's ranks, which it visits in the order of their nodes.
    Incidence of(Range ranks, int64_t* visits) const {
        visit_by_node(ranks_.data(), int64_t(ranks_.size()), ranks, visits);
        Incidence own = incidence_;
        own.visits = visits;
        return own;
    }

   private:
    std::vector<int64_t> ranks_;
    const Incidence incidence_;
};

template <class T>
void attention(const Arguments& a, const Team& team, const Incidence& incoming, Range ranks, ForwardSpace<T>& space,
               int64_t first_frame, int64_t num_frames, Lanes<T> weights) {
    T* const room = space.row + team.member * space.row_size;
    const auto kind = Kind(a.kind);
    const bool in_place = is_in_place<T>(a, a.width);
    for_ranks(ranks, in_place, num_frames, [&](Range part, int64_t f) {
        for (int64_t k = 0; k < a.heads; k++) {
            const Strip<T> strip{kind, first_frame + f, k * a.width, a.width, space.score_width};
            const Gather<T> keys(a, team, in_place, a.key, strip, space.tile);
            score_edges(a, incoming, part, strip, keys, room, weights, f * a.heads + k);
        }
    });
    softmax(incoming.ptr, ranks, weights);
}

template <class T>
void sum_frame(const Arguments& a, const Team& team, const Incidence& incoming, Range ranks, ForwardSpace<T>& space,
               int64_t frame, Lanes<T> weights, int64_t lane) {
    const bool in_place = is_in_place<T>(a, a.hidden);
    for_strips<T>(Kind(a.kind), frame, 0, a.hidden, cut_of(in_place), [&](const Strip<T>& strip, auto vectors) {
        const Gather<T> src(a, team, in_place, a.src, strip, space.tile);
        const Sums<T> sums{a, strip, weights, lane};
        if (a.edge != nullptr)
            sum_heads<T, vectors, true>(sums, incoming, ranks, src);
        else
            sum_heads<T, vectors, false>(sums, incoming, ranks, src);
    });
}

inline int count_threads(const Arguments& a) {
    const int64_t channels = a.heads * (a.hidden + (a.query.data != nullptr ? a.width : 0));
    return count_threads(a.threads, double(a.num_frames) * double(a.num_edges + a.num_nodes) * double(channels));
}

template <class T>
void forward(const Arguments& a) {
    const Incoming all(a);
    on_teams<ForwardSpace<T>>(a, count_threads(a), 0, a.num_frames, [&](const Team& team, ForwardSpace<T>& space) {
        const Range ranks = share(a.ptr, {0, a.num_nodes}, team);
        const Range edges{a.ptr[ranks.begin], a.ptr[ranks.end]};
        const Incidence incoming = all.of(ranks, space.visits);
        for_blocks<T>(a, team, [&](int64_t first_frame, int64_t num_frames) {
            const auto weights = lanes_of_block<T>(a, a.alpha, space.scores, num_frames);
            if (a.query.data != nullptr) {
                attention(a, team, incoming, ranks, space, first_frame, num_frames, weights);
                copy_out(a, weights, a.alpha, first_frame, edges);
            } else {
                copy_in(a, weights, a.alpha, first_frame, edges);
            }
            for_ranks(ranks, is_in_place<T>(a, a.hidden), num_frames, [&](Range part, int64_t f) {
                sum_frame(a, team, incoming, part, space, first_frame + f, weights, f * a.heads);
            });
        });
    });
}
