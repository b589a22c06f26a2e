// Batch norm, ReLU, 2 x 2 max-pooling and a repeated border in one go, over maps with channels last.
//
// The norm is monotone in every channel, so what a cell's maximum becomes is the maximum of what its pixels become; with
// a negative scale it is the minimum. So a cell is pooled before it is normalised.
//
// Shape legend: N frames of H x W pixels and C channels, pooled to h x w cells of P x P; C is a multiple of the lanes.

#include "../ops/native/teams.h"

// Field by field what norm_pool.py packs: 64 bits each.
struct NormArguments {
    int64_t is_bfloat16, threads, num_frames, height, width, channels;
    int64_t pool, border, training;
    double eps;
    const NUMBER *weight, *bias;
    const void* x;    // [N, H, W, C]
    NUMBER* mean;      // [C]; written in training, as is the variance
    NUMBER* variance;  // [C]
    NUMBER* inverse;   // [C]; of the standard deviation, written by the forward pass
    NUMBER* frames;   // [N, 2, C]; room for what is summed in a frame
    NUMBER* rows;     // [threads, W, kMaxLanes]; room for the gradients of a row
    void* best;       // [N, h, w, C]; of every cell the pixel that is kept; x itself without pooling
    void* y;          // [N, h + 2 border, w + 2 border, C]; the result, or its gradient in the backward pass
    void* grad_x;     // [N, H, W, C]
    NUMBER *grad_weight, *grad_bias;
};

static_assert(sizeof(NormArguments) == 23 * 8, "as many fields as Python packs");

using T = NUMBER;
using V = Vec<T>;
constexpr int kStep = kLanes<T>;
constexpr int kMaxLanes = 16;

INLINE V read(const T* from) { return load(from); }
INLINE void write(T* to, V v) { store(to, v); }
INLINE Vec<float> read(const uint16_t* from) { return load_bfloat16(from); }
INLINE void write(uint16_t* to, Vec<float> v) { store_bfloat16(to, v); }

// The sum of f over all pixels of a frame, in two sums for the processor to add side by side.
template <class S, class F>
INLINE V sum_pixels(const NormArguments& a, const S* x, F f) {
    V total = {};
    for (int64_t i = 0; i < a.height; i++) {
        V even = {}, odd = {};
        int64_t j = 0;
        for (; j + 2 <= a.width; j += 2, x += 2 * a.channels) {
            even += f(read(x));
            odd += f(read(x + a.channels));
        }
        for (; j < a.width; j++, x += a.channels) even += f(read(x));
        total += even + odd;
    }
    return total;
}

// Channels [c, c + kStep) of a frame. It has the arguments by value: else each write to memory might change them.
template <class S, int P>
struct Walk {
    NormArguments a;
    int64_t frame, c;
    int64_t h = a.height / P, w = a.width / P;
    int64_t row = a.width * a.channels, y_row = (w + 2 * a.border) * a.channels;
    V mean = load(a.mean + c);
    V inverse = load(a.inverse + c), scale = load(a.weight + c) * inverse, shift = load(a.bias + c) - mean * scale;

    template <class P_>
    INLINE P_* pixels(P_* data) const { return data + frame * a.height * row + c; }
    INLINE const S* x() const { return pixels(static_cast<const S*>(a.x)); }
    INLINE S* best() const { return static_cast<S*>(a.best) + frame * h * w * a.channels + c; }
    // The first cell inside the border.
    INLINE S* y() const {
        return static_cast<S*>(a.y) + frame * (h + 2 * a.border) * y_row + a.border * (y_row + a.channels) + c;
    }
    INLINE T* sums() const { return a.frames + frame * 2 * a.channels + c; }
    INLINE V normalised(V pixel) const { return relu<T>(pixel * scale + shift); }

    INLINE void write_y() const {
        const S* from = best();
        for (int64_t i = 0; i < h; i++) {
            S* const to = y() + i * y_row;
            for (int64_t j = 0; j < w; j++, from += a.channels) write(to + j * a.channels, normalised(read(from)));
            if (!a.border) continue;
            write(to - a.channels, read(to));
            write(to + w * a.channels, read(to + (w - 1) * a.channels));
        }
        if (!a.border) return;
        S *const first = y() - a.channels, *const last = first + (h - 1) * y_row;
        for (int64_t j = 0; j < y_row; j += a.channels) {
            write(first - y_row + j, read(first + j));
            write(last + y_row + j, read(last + j));
        }
    }

    // The gradients of the cells of a row before the ReLU.
    INLINE void gradients(int64_t i, V* to) const {
        for (int64_t j = 0; j < w; j++) to[j] = V{};
        for (int64_t k = i == 0 ? -a.border : i; k <= (i == h - 1 ? i + a.border : i); k++) {
            const S* const from = y() + k * y_row;
            for (int64_t j = 0; j < w; j++) to[j] += read(from + j * a.channels);
            if (!a.border) continue;
            to[0] += read(from - a.channels);
            to[w - 1] += read(from + w * a.channels);
        }
        const S* const kept = best() + i * w * a.channels;
        for (int64_t j = 0; j < w; j++) to[j] = where_active<T>(normalised(read(kept + j * a.channels)), to[j]);
    }

    INLINE void sum_gradients(V* room) const {
        V grads = {}, products = {};
        const S* kept = best();
        for (int64_t i = 0; i < h; i++) {
            gradients(i, room);
            for (int64_t j = 0; j < w; j++, kept += a.channels) {
                grads += room[j];
                products += room[j] * (read(kept) - mean);
            }
        }
        store(sums(), grads);
        store(sums() + a.channels, products);
    }

    // Every pixel has a part in the mean and the variance; one of each cell also is the cell.
    INLINE void write_gradients(V* room) const {
        V slope = {}, level = {};
        if (a.training) {
            const T count = T(a.num_frames * a.height * a.width);
            slope = -scale * inverse * load(a.grad_weight + c) / count;
            level = -scale * load(a.grad_bias + c) / count;
        }
        const auto as_statistic = [&](V pixel) { return (pixel - mean) * slope + level; };
        S* const to = pixels(static_cast<S*>(a.grad_x));
        const S* kept = best();
        for (int64_t i = 0; i < h; i++) {
            gradients(i, room);
            for (int64_t j = 0; j < w; j++, kept += a.channels) {
                const V cell = read(kept);
                V grad = room[j] * scale;
                UNROLL for (int p = 0; p < P; p++)
                    UNROLL for (int q = 0; q < P; q++) {
                        const int64_t at = (i * P + p) * row + (j * P + q) * a.channels;
                        const V pixel = read(x() + at);
                        const V taken = P == 1 ? grad : pixel == cell ? grad : V{};
                        write(to + at, as_statistic(pixel) + taken);
                        // The first of equal pixels is the one.
                        if (P > 1) grad = pixel == cell ? V{} : grad;
                    }
            }
        }
        for (int64_t i = 0; i < a.height; i++)
            for (int64_t j = i < h * P ? w * P : 0; j < a.width; j++) {
                const int64_t at = i * row + j * a.channels;
                write(to + at, as_statistic(read(x() + at)));
            }
    }
};

// Mean and squared deviations of the channels in a frame, which its second reading takes from the cache.
template <class S>
void look_at(NormArguments a, int64_t frame, int64_t c) {
    const int64_t size = a.height * a.width;
    const S* const x = static_cast<const S*>(a.x) + frame * size * a.channels + c;
    const V mean = sum_pixels(a, x, [](V pixel) { return pixel; }) / T(size);
    T* const to = a.frames + frame * 2 * a.channels + c;
    store(to, mean);
    store(to + a.channels, sum_pixels(a, x, [=](V pixel) { return (pixel - mean) * (pixel - mean); }));
}

// Keeps the greatest pixel of every cell, with a negative weight the smallest, with weight 0 the first; NaN if it has one.
template <class S>
void pool(NormArguments a, int64_t frame, int64_t c) {
    const int64_t h = a.height / 2, w = a.width / 2, row = a.width * a.channels;
    const S* const x = static_cast<const S*>(a.x) + frame * a.height * row + c;
    S* to = static_cast<S*>(a.best) + frame * h * w * a.channels + c;
    const V weight = load(a.weight + c), zero = {}, one = zero + 1;
    const V sign = weight > zero ? one : weight < zero ? -one : zero;
    for (int64_t i = 0; i < h; i++)
        for (int64_t j = 0; j < w; j++, to += a.channels) {
            const S* const cell = x + 2 * (i * row + j * a.channels);
            V best = read(cell);
            for (const int64_t at : {a.channels, row, row + a.channels}) {
                const V pixel = read(cell + at);
                best = pixel * sign > best * sign ? pixel : best;
                best = pixel != pixel ? pixel : best;
            }
            write(to, best);
        }
}

// Calls `run(frame, c, room)` for all frames and strips of channels; `room` has a vector for every pixel of a row.
template <class Run>
void on_strips(const NormArguments& a, Run run) {
    const int64_t strips = a.channels / kStep, tasks = a.num_frames * strips;
    [[maybe_unused]] const int threads = count_threads(a.threads, double(tasks * a.height * a.width));
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (int64_t task = 0; task < tasks; task++) {
#ifdef _OPENMP
        T* const room = a.rows + omp_get_thread_num() * a.width * kMaxLanes;
#else
        T* const room = a.rows;
#endif
        run(task / strips, task % strips * kStep, reinterpret_cast<V*>(room));
    }
}

// Calls `add(lane, first sum, second sum)` for channels [c, c + kStep) of every frame.
template <class Add>
INLINE void sum_frames(const NormArguments& a, int64_t c, Add add) {
    for (int64_t f = 0; f < a.num_frames; f++) {
        const T* const sums = a.frames + f * 2 * a.channels + c;
        for (int l = 0; l < kStep; l++) add(l, sums[l], sums[a.channels + l]);
    }
}

template <class S, int P>
void forward(const NormArguments& a) {
    on_strips(a, [&](int64_t frame, int64_t c, V*) {
        if (a.training) look_at<S>(a, frame, c);
        if (P == 2) pool<S>(a, frame, c);
    });
    const double size = double(a.height * a.width);
    for (int64_t c = 0; a.training && c < a.channels; c += kStep) {
        double mean[kStep] = {}, deviations[kStep] = {};
        sum_frames(a, c, [&](int l, T of_frame, T) { mean[l] += of_frame / double(a.num_frames); });
        sum_frames(a, c, [&](int l, T of_frame, T squares) {
            deviations[l] += squares + size * (of_frame - mean[l]) * (of_frame - mean[l]);
        });
        for (int l = 0; l < kStep; l++) {
            a.mean[c + l] = T(mean[l]);
            a.variance[c + l] = T(deviations[l] / (size * a.num_frames));
        }
    }
    for (int64_t c = 0; c < a.channels; c++) a.inverse[c] = T(1 / std::sqrt(double(a.variance[c]) + a.eps));
    on_strips(a, [&](int64_t frame, int64_t c, V*) { Walk<S, P>{a, frame, c}.write_y(); });
}

template <class S, int P>
void backward(const NormArguments& a) {
    on_strips(a, [&](int64_t frame, int64_t c, V* room) { Walk<S, P>{a, frame, c}.sum_gradients(room); });
    for (int64_t c = 0; c < a.channels; c += kStep) {
        double grads[kStep] = {}, products[kStep] = {};
        sum_frames(a, c, [&](int l, T grad, T product) { grads[l] += grad, products[l] += product; });
        for (int l = 0; l < kStep; l++) {
            a.grad_bias[c + l] = T(grads[l]);
            a.grad_weight[c + l] = T(products[l] * a.inverse[c + l]);
        }
    }
    on_strips(a, [&](int64_t frame, int64_t c, V* room) { Walk<S, P>{a, frame, c}.write_gradients(room); });
}

#define EXPORT(name, run)                                                              \
    extern "C" __attribute__((visibility("default"))) int name(const NormArguments* a) { \
        using Half = std::conditional_t<sizeof(T) == 4, uint16_t, T>;                  \
        if (a->is_bfloat16)                                                            \
            a->pool ? run<Half, 2>(*a) : run<Half, 1>(*a);                             \
        else                                                                           \
            a->pool ? run<T, 2>(*a) : run<T, 1>(*a);                                   \
        return 0;                                                                      \
    }

EXPORT(rstg_norm_forward, forward)
EXPORT(rstg_norm_backward, backward)
