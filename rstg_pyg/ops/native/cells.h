// Recurrent cells over sequences of different lengths: the loop over the steps, with its product, and its gradient.
//
// Rows are packed: all sequences' first frames, then the second frames of those that have one, and so on; the longest
// sequence comes first, so that the rows of a step belong to the first rows of the step before. Sequences know nothing
// of each other: a thread walks all steps of its own ones and waits for nobody.
#pragma once

#include "teams.h"

// Field by field what recurrent.py packs: 64 bits each. M rows, R sequences, G gates of H channels, whole vectors.
struct CellArguments {
    int64_t is_gru, threads, num_steps, num_rows, channels;
    const int64_t* batch_sizes;
    const void *weight, *bias;       // [H, G * H], of a GRU's new gate [H]; backward [G * H, H], none
    const void* input;               // [M, G * H], the input's part of the gates; backward none
    void *gates, *kept;              // [M, G * H], active; [M, H], see `step`; both or none
    void* out;                       // [M, H]
    const void *first_h, *first_c;   // [R, H]; the latter for an LSTM's gradient alone
    void* carry;                     // [R, H]: an LSTM's c; backward its gradient, or a GRU's of h past the products
    void* last_h;                    // [R, H]; backward its gradient
    const void* grad;                // of `out`
    void *grad_gates, *grad_fresh;   // [M, G * H]; of the state's part of a GRU's new gate [M, H]
};

// Accumulators of so many rows and four vectors fill the registers.
constexpr int kCellRows = kVectorBytes == 64 ? 6 : 2;

INLINE Vec<float> smaller_magnitude(Vec<float> x) { return x > 0 ? -x : x; }

INLINE Vec<float> sigmoid(Vec<float> x) {
    const Vec<float> one = broadcast(1.0f), e = exp_of_negative(smaller_magnitude(x));
    return (x < 0 ? e : one) / (one + e);
}

// Near 0, where the exponentials would cancel, by an odd polynomial (that of Cephes).
INLINE Vec<float> tanh(Vec<float> x) {
    const Vec<float> negative = smaller_magnitude(x), e = exp_of_negative(negative + negative);
    const Vec<float> size = (1 - e) / (1 + e), z = x * x;
    Vec<float> y = z * -5.70498872745e-3f + 2.06390887954e-2f;
    y = y * z - 5.37397155531e-2f;
    y = y * z + 1.33314422036e-1f;
    y = y * z - 3.33332819422e-1f;
    return negative > -0.625f ? y * z * x + x : (x < 0 ? -size : size);
}

INLINE Vec<double> sigmoid(Vec<double> x) {
    for (int l = 0; l < kLanes<double>; l++) x[l] = 1 / (1 + std::exp(-x[l]));
    return x;
}

INLINE Vec<double> tanh(Vec<double> x) {
    for (int l = 0; l < kLanes<double>; l++) x[l] = std::tanh(x[l]);
    return x;
}

// The new h. Gates become active; `fresh` is the state's part of the new gate.
template <class V>
INLINE V gru_cell(V (&gate)[3], V fresh, V h) {
    gate[0] = sigmoid(gate[0]);
    gate[1] = sigmoid(gate[1]);
    gate[2] = tanh(gate[2] + gate[0] * fresh);
    return gate[2] + gate[1] * (h - gate[2]);
}

// The new h. Gates become active, and c the new one.
template <class V>
INLINE V lstm_cell(V (&gate)[4], V& c) {
    gate[0] = sigmoid(gate[0]);
    gate[1] = sigmoid(gate[1]);
    gate[2] = tanh(gate[2]);
    gate[3] = sigmoid(gate[3]);
    c = gate[1] * c + gate[0] * gate[2];
    return gate[3] * tanh(c);
}

// Adds the products of rows with a strip of a matrix, packed side by side.
template <class T, int R, int V>
INLINE void add_products(const T* rows, int64_t stride, const T* strip, int64_t depth, Vec<T> (&total)[R][V]) {
    for (int64_t k = 0; k < depth; k++, strip += V * kLanes<T>) {
        Vec<T> weight[V];
        load_vectors(weight, strip);
        UNROLL for (int r = 0; r < R; r++) {
            const Vec<T> x = broadcast(rows[r * stride + k]);
            UNROLL for (int v = 0; v < V; v++) total[r][v] += x * weight[v];
        }
    }
}

// Calls `run` for R rows at a time, then for the rest in smaller blocks.
template <int R, class Run>
INLINE void for_rows(int64_t row, int64_t end, Run run) {
    for (; row + R <= end; row += R) run(row, std::integral_constant<int, R>());
    if constexpr (R > 1) for_rows<R / 2>(row, end, run);
}

template <class T, bool Gru>
class Cells {
   public:
    static constexpr int kGates = Gru ? 3 : 4, kLane = kLanes<T>;

    explicit Cells(const CellArguments& a)
        : a_(a), h_(a.channels), room_(Arena::bytes<T>(kGates * h_ * h_)), packed_(room_.take<T>(kGates * h_ * h_)) {}

    void forward() {
        pack<kGates>(h_, h_, kLane);
        on_threads([&](int member, int size) {
            int64_t before = 0, first = 0;
            for (int64_t t = 0; t < a_.num_steps; before = first, first += a_.batch_sizes[t++]) {
                const T* const last = t == 0 ? at(a_.first_h) : at(a_.out) + before * h_;
                for_strips(member, size, 0, a_.batch_sizes[t], kLane, [&](int64_t row, int64_t channel, auto count) {
                    step<count>(last, first, row, channel);
                });
            }
        });
        for (int64_t t = 0, first = 0; t < a_.num_steps; first += a_.batch_sizes[t++]) {
            const int64_t ended = t + 1 < a_.num_steps ? a_.batch_sizes[t + 1] : 0, left = a_.batch_sizes[t] - ended;
            std::memcpy(at(a_.last_h) + ended * h_, at(a_.out) + (first + ended) * h_, left * h_ * sizeof(T));
        }
    }

    void backward() {
        if (h_ % (4 * kLane) == 0)
            backward<4>();
        else if (h_ % (2 * kLane) == 0)
            backward<2>();
        else
            backward<1>();
    }

   private:
    static T* at(void* data) { return static_cast<T*>(data); }
    static const T* at(const void* data) { return static_cast<const T*>(data); }

    // Puts the V vectors of each row of the weight side by side that a strip takes: they lie `shift` apart.
    template <int V>
    void pack(int64_t depth, int64_t shift, int64_t step) {
        T* to = packed_;
        for (int64_t channel = 0; channel < h_; channel += step)
            for (int64_t k = 0; k < depth; k++)
                for (int v = 0; v < V; v++, to += kLane)
                    store(to, load(at(a_.weight) + k * (kGates * h_ * h_ / depth) + v * shift + channel));
    }

    template <class Run>
    void on_threads(Run run) const {
        const int64_t blocks = (a_.batch_sizes[0] + kCellRows - 1) / kCellRows;
        const int threads = count_threads(a_.threads < blocks ? a_.threads : blocks,
                                          double(a_.num_rows) * kGates * h_ * h_);
        if (threads <= 1) return run(0, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
        run(omp_get_thread_num(), omp_get_num_threads());
#endif
    }

    // The rows of a thread's sequences: every so many blocks one, so that all threads have long and short ones.
    template <class Run>
    INLINE void for_strips(int member, int size, int64_t begin, int64_t end, int64_t step, Run run) const {
        for (int64_t channel = 0; channel < h_; channel += step)
            for (int64_t row = kCellRows * member; row < end; row += kCellRows * size) {
                const int64_t next = row + kCellRows;
                for_rows<kCellRows>(row < begin ? begin : row, next < end ? next : end,
                                    [&](int64_t r, auto count) { run(r, channel, count); });
            }
    }

    // Keeps the new c of an LSTM, or the state's part of a GRU's new gate.
    template <int R>
    INLINE void step(const T* last, int64_t first, int64_t row, int64_t channel) const {
        Vec<T> x[R][kGates];
        const T* const input = at(a_.input) + (first + row) * kGates * h_ + channel;
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < kGates; g++)
            x[r][g] = load(Gru && g == 2 ? at(a_.bias) + channel : input + (r * kGates + g) * h_);
        add_products(last + row * h_, h_, packed_ + channel * kGates * h_, h_, x);
        for (int r = 0; r < R; r++) {
            const int64_t place = (first + row + r) * h_ + channel, state = (row + r) * h_ + channel;
            Vec<T> kept = Gru ? x[r][2] : load(at(a_.carry) + state), out;
            if constexpr (Gru) {
                x[r][2] = load(input + (r * kGates + 2) * h_);
                out = gru_cell(x[r], kept, load(last + state));
            } else {
                out = lstm_cell(x[r], kept);
                store(at(a_.carry) + state, kept);
            }
            store(at(a_.out) + place, out);
            if (a_.kept == nullptr) continue;
            store(at(a_.kept) + place, kept);
            T* const gate = at(a_.gates) + (first + row + r) * kGates * h_ + channel;
            UNROLL for (int g = 0; g < kGates; g++) store(gate + g * h_, x[r][g]);
        }
    }

    template <int V>
    void backward() {
        pack<V>(kGates * h_, kLane, V * kLane);
        on_threads([&](int member, int size) {
            int64_t first = a_.num_rows, going = 0;
            for (int64_t t = a_.num_steps - 1; t >= 0; t--) {
                const int64_t count = a_.batch_sizes[t], next = first;
                first -= count;
                const int64_t before = t == 0 ? 0 : first - a_.batch_sizes[t - 1];
                const T* const last = t == 0 ? at(Gru ? a_.first_h : a_.first_c)
                                             : at(Gru ? a_.out : a_.kept) + before * h_;
                const auto part = [&](int64_t begin, int64_t end, bool follows) {
                    for_strips(member, size, begin, end, V * kLane, [&](int64_t row, int64_t channel, auto rows) {
                        step_gradient<rows, V>(last, first, next, follows, row, channel);
                    });
                };
                part(0, going, true);
                part(going, count, false);
                going = count;
            }
        });
    }

    // `follows`: the sequences have another step.
    template <int R, int V>
    INLINE void step_gradient(const T* last, int64_t first, int64_t next, bool follows, int64_t row,
                              int64_t channel) const {
        Vec<T> dh[R][V];
        const T* const more = Gru ? at(a_.carry) : follows ? nullptr : at(a_.last_h);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) {
            const int64_t c = channel + v * kLane;
            dh[r][v] = load(at(a_.grad) + (first + row + r) * h_ + c);
            if (more != nullptr) dh[r][v] += load(more + (row + r) * h_ + c);
        }
        if (follows) {
            const T* const strip = packed_ + channel * kGates * h_;
            const int64_t depth = Gru ? 2 * h_ : 4 * h_;
            add_products(at(a_.grad_gates) + (next + row) * kGates * h_, kGates * h_, strip, depth, dh);
            if (Gru) add_products(at(a_.grad_fresh) + (next + row) * h_, h_, strip + depth * V * kLane, h_, dh);
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) {
                const int64_t place = first + row + r, c = channel + v * kLane, state = (row + r) * h_ + c;
                const T* const gate = at(a_.gates) + place * kGates * h_ + c;
                T* const to = at(a_.grad_gates) + place * kGates * h_ + c;
                const Vec<T> d = dh[r][v], before = load(last + state), kept = load(at(a_.kept) + place * h_ + c);
                if constexpr (Gru) {
                    const Vec<T> reset = load(gate), update = load(gate + h_), fresh = load(gate + 2 * h_);
                    const Vec<T> d_fresh = d * (1 - update) * (1 - fresh * fresh);
                    store(to, d_fresh * kept * reset * (1 - reset));
                    store(to + h_, d * (before - fresh) * update * (1 - update));
                    store(to + 2 * h_, d_fresh);
                    store(at(a_.grad_fresh) + place * h_ + c, d_fresh * reset);
                    store(at(a_.carry) + state, d * update);
                } else {
                    const Vec<T> in = load(gate), forget = load(gate + h_), fresh = load(gate + 2 * h_);
                    const Vec<T> open = load(gate + 3 * h_), y = tanh(kept);
                    const Vec<T> dc = load(at(a_.carry) + state) + d * open * (1 - y * y);
                    store(to, dc * fresh * in * (1 - in));
                    store(to + h_, dc * before * forget * (1 - forget));
                    store(to + 2 * h_, dc * in * (1 - fresh * fresh));
                    store(to + 3 * h_, d * y * open * (1 - open));
                    store(at(a_.carry) + state, dc * forget);
                }
            }
    }

    const CellArguments& a_;
    const int64_t h_;
    Arena room_;
    T* const packed_;
};
