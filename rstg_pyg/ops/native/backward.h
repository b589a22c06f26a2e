// The backward pass. Nothing is kept from the forward pass but its inputs and the weights.
//
// A team of one thread walks the incoming edges once and adds to the gradients of their sources as it goes. A team of
// several walks them by destination, waits, and walks them by source.
#pragma once

#include "forward.h"

template <class T>
struct BackwardSpace {
    static constexpr int lanes = kLanes<T>;
    int64_t upstream_size, num_scores, tile_size, upstream_tile_size;
    Arena arena;
    T *weights, *gradients, *tile, *src_tile, *upstream_tile, *upstream;
    int64_t* visits;

    explicit BackwardSpace(const Arguments& a)
        : upstream_size(a.heads * 4 * lanes),
          num_scores(a.num_edges * frames_per_block<T>(a) * a.heads),
          tile_size(a.num_nodes * 4 * lanes),
          upstream_tile_size(a.heads * tile_size),
          arena(2 * Arena::bytes<T>(num_scores) + 2 * Arena::bytes<T>(tile_size) +
                Arena::bytes<T>(upstream_tile_size) + a.threads * Arena::bytes<T>(upstream_size) +
                Arena::bytes<int64_t>(a.num_nodes)),
          weights(arena.take<T>(num_scores)),
          gradients(arena.take<T>(num_scores)),
          tile(arena.take<T>(tile_size)),
          src_tile(arena.take<T>(tile_size)),
          upstream_tile(arena.take<T>(upstream_tile_size)),
          upstream(arena.take<T>(a.threads * upstream_size)),
          visits(arena.take<int64_t>(a.num_nodes)) {}
};

// The edges sorted by their source.
class Outgoing {
   public:
    explicit Outgoing(const Arguments& a)
        : arena_(Arena::bytes<int64_t>(a.num_nodes + 1) + Arena::bytes<int64_t>(a.num_edges)) {
        int64_t* ptr = arena_.take<int64_t>(a.num_nodes + 1);
        int64_t* edges = arena_.take<int64_t>(a.num_edges);
        for (int64_t n = 0; n <= a.num_nodes; n++) ptr[n] = 0;
        for (int64_t e = 0; e < a.num_edges; e++) ptr[a.sources[e]]++;
        for (int64_t n = 1; n <= a.num_nodes; n++) ptr[n] += ptr[n - 1];
        for (int64_t e = a.num_edges - 1; e >= 0; e--) edges[--ptr[a.sources[e]]] = e;
        incidence = {nullptr, ptr, edges, a.destinations, nullptr};
    }

    Incidence incidence;

   private:
    Arena arena_;
};

// The gradient of an edge tensor that is the same in all frames: a sum over frames for each team, and their sum.
template <class T>
class ConstantEdge {
   public:
    ConstantEdge(const Arguments& a, int teams)
        : width(padded(a.hidden, 4 * kLanes<T>)), a_(a), teams_(teams), wanted_(is_wanted(a)) {
        if (!wanted_) return;
        data_ = static_cast<T*>(std::calloc(size_t(teams) * a.num_edges * width, sizeof(T)));
        if (data_ == nullptr) throw std::bad_alloc();
    }

    ~ConstantEdge() { std::free(data_); }
    ConstantEdge(const ConstantEdge&) = delete;
    ConstantEdge& operator=(const ConstantEdge&) = delete;

    T* of(const Team& team) const { return wanted_ ? data_ + team.index * a_.num_edges * width : nullptr; }

    void write() const {
        if (!wanted_) return;
        for (int64_t e = 0; e < a_.num_edges; e++) {
            T* row = data_ + e * width;
            for (int team = 1; team < teams_; team++)
                for (int64_t c = 0; c < a_.hidden; c++) row[c] += row[team * a_.num_edges * width + c];
            store_elements(a_.grad_edge, e * a_.hidden, row, a_.hidden, Kind(a_.kind));
        }
    }

    const int64_t width;

   private:
    static bool is_wanted(const Arguments& a) {
        return a.grad_edge != nullptr && a.edge_frames == 1 && a.num_frames > 1;
    }

    const Arguments& a_;
    const int teams_;
    const bool wanted_;
    T* data_ = nullptr;
};

// One team's walk over its frames.
template <class T>
struct BackwardWalk {
    const Arguments& a;
    const Team& team;
    BackwardSpace<T>& space;
    const Incidence &incoming, &outgoing;
    const ConstantEdge<T>& constant_edge;
    Range ranks, sources;
    Lanes<T> weights = {}, gradients = {};

    void push(Range part, int64_t frame, int64_t lane) {
        const bool in_place = is_in_place<T>(a, a.hidden);
        const bool adds = a.grad_src.data != nullptr && team.size == 1;
        for_strips<T>(Kind(a.kind), frame, 0, a.hidden, cut_of(in_place), [&](const Strip<T>& strip, auto vectors) {
            const Gather<T> src(a, team, in_place, a.src, strip, space.tile);
            const Sums<T> sums{a, strip, weights, lane};
            T* const src_sums = !adds      ? nullptr
                                : in_place ? reinterpret_cast<T*>(a.grad_src.data) + strip.offset(a.grad_src, 0)
                                           : space.src_tile;
            if (adds && !in_place)
                for (int64_t c = 0; c < a.num_nodes * strip.width; c++) src_sums[c] = 0;
            const SumGradients<T> found{gradients, src_sums, in_place ? a.grad_src.node : strip.width,
                                        constant_edge.of(team), constant_edge.width};
            T* const upstream = space.upstream + team.member * space.upstream_size;
            const auto walk = [&](auto one_head, auto has_edge) {
                push_gradients<T, vectors, one_head, has_edge>(sums, incoming, part, src, found, upstream);
            };
            if (a.edge != nullptr)
                walk(std::false_type(), std::true_type());
            else if (a.heads == 1)
                walk(std::true_type(), std::false_type());
            else
                walk(std::false_type(), std::false_type());
            if (adds && !in_place)
                for (int64_t n = 0; n < a.num_nodes; n++) strip.write(a.grad_src, n, src_sums + n * strip.width);
        });
    }

    void pull_sources(Range part, int64_t frame, int64_t lane) {
        const bool in_place = is_in_place<T>(a, a.hidden);
        for_strips<T>(Kind(a.kind), frame, 0, a.hidden, cut_of(in_place), [&](const Strip<T>& strip, auto vectors) {
            const Gather<T> dst(a, team, in_place, a.dst, strip, space.tile);
            const Gather<T> upstream(a, team, in_place, a.sum, strip, space.upstream_tile, a.heads, a.hidden);
            const Sums<T> sums{a, strip, weights, lane};
            if (a.edge != nullptr)
                pull_gradients<T, vectors, true>(sums, outgoing, part, dst, upstream);
            else
                pull_gradients<T, vectors, false>(sums, outgoing, part, dst, upstream);
        });
    }

    void pull_scores(const Incidence& incidence, Range nodes, const Operand& rows, const Operand& out, int64_t frame,
                     int64_t lane) {
        if (out.data == nullptr) return;
        const bool in_place = is_in_place<T>(a, a.width);
        const Cut cut = cut_of(in_place);
        for (int64_t k = 0; k < a.heads; k++)
            for_strips<T>(Kind(a.kind), frame, k * a.width, a.width, cut, [&](const Strip<T>& strip, auto vectors) {
                const Gather<T> gather(a, team, in_place, rows, strip, space.tile);
                pull_rows<T, vectors>(incidence, nodes, strip, gather, gradients, lane + k, out);
            });
    }

    // Before anything is added to them in place.
    void clear_sources(int64_t first_frame, int64_t num_frames) {
        for (int64_t n = 0; n < a.num_nodes; n++) {
            T* const to = reinterpret_cast<T*>(a.grad_src.data) + n * a.grad_src.node + first_frame * a.grad_src.frame;
            std::memset(to, 0, num_frames * a.hidden * sizeof(T));
        }
    }

    void block(int64_t first_frame, int64_t num_frames) {
        const Range edges{a.ptr[ranks.begin], a.ptr[ranks.end]};
        const bool hidden_in_place = is_in_place<T>(a, a.hidden), scores_in_place = is_in_place<T>(a, a.width);
        const bool wants_scores = a.grad_query.data != nullptr || a.grad_key.data != nullptr;
        weights = lanes_of_block<T>(a, a.alpha, space.weights, num_frames);
        copy_in(a, weights, a.alpha, first_frame, edges);
        gradients = {nullptr, 0};
        if (a.grad_alpha != nullptr || wants_scores) {
            gradients = lanes_of_block<T>(a, a.grad_alpha, space.gradients, num_frames);
            if (a.alpha_incoming != nullptr) {
                copy_in(a, gradients, a.alpha_incoming, first_frame, edges);
            } else {
                T* const first = gradients.edge(edges.begin);
                std::memset(first, 0, (edges.end - edges.begin) * gradients.count * sizeof(T));
            }
        }
        if (a.sum.data != nullptr) {
            if (a.grad_src.data != nullptr && team.size == 1 && hidden_in_place) clear_sources(first_frame, num_frames);
            for_ranks(ranks, hidden_in_place, num_frames,
                      [&](Range part, int64_t f) { push(part, first_frame + f, f * a.heads); });
        }
        if (a.grad_alpha != nullptr) copy_out(a, gradients, a.grad_alpha, first_frame, edges);
        if (wants_scores) {
            softmax_gradient(incoming.ptr, ranks, weights, gradients);
            for_ranks(ranks, scores_in_place, num_frames, [&](Range part, int64_t f) {
                pull_scores(incoming, part, a.key, a.grad_query, first_frame + f, f * a.heads);
            });
        }
        team.wait();
        if (a.sum.data != nullptr && a.grad_src.data != nullptr && team.size > 1)
            for_ranks(sources, hidden_in_place, num_frames,
                      [&](Range part, int64_t f) { pull_sources(part, first_frame + f, f * a.heads); });
        if (wants_scores)
            for_ranks(sources, scores_in_place, num_frames, [&](Range part, int64_t f) {
                pull_scores(outgoing, part, a.query, a.grad_key, first_frame + f, f * a.heads);
            });
    }
};

template <class T>
void backward(const Arguments& a) {
    const Incoming all(a);
    const Outgoing outgoing(a);
    const int threads = count_threads(a);
    const ConstantEdge<T> constant_edge(a, threads);
    on_teams<BackwardSpace<T>>(a, threads, 0, a.num_frames, [&](const Team& team, BackwardSpace<T>& space) {
        const Range ranks = share(a.ptr, {0, a.num_nodes}, team);
        const Range sources = share(outgoing.incidence.ptr, {0, a.num_nodes}, team);
        const Incidence incoming = all.of(ranks, space.visits);
        BackwardWalk<T> walk{a, team, space, incoming, outgoing.incidence, constant_edge, ranks, sources};
        for_blocks<T>(a, team, [&](int64_t first_frame, int64_t num_frames) { walk.block(first_frame, num_frames); });
    });
    constant_edge.write();
}
