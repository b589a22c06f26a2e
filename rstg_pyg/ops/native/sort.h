// Sorting the edges of a graph by the degree of their destination, then by destination; ties keep their order.
#pragma once

#include <cstdint>
#include <vector>

// Field by field what index.py packs: 64 bits each.
struct SortArguments {
    int64_t num_nodes, num_edges;
    const int64_t *source, *destination;
    int64_t *order, *sorted_source, *sorted_destination, *nodes, *ptr;
};

inline void sort_edges(const SortArguments& a) {
    std::vector<int64_t> degree(a.num_nodes), rank(a.num_nodes);
    int64_t highest = 0;
    for (int64_t e = 0; e < a.num_edges; e++) {
        const int64_t d = ++degree[a.destination[e]];
        if (d > highest) highest = d;
    }
    std::vector<int64_t> place(highest + 2);
    for (int64_t n = 0; n < a.num_nodes; n++) place[degree[n] + 1]++;
    for (int64_t d = 0; d <= highest; d++) place[d + 1] += place[d];
    for (int64_t n = 0; n < a.num_nodes; n++) {
        rank[n] = place[degree[n]]++;
        a.nodes[rank[n]] = n;
    }
    a.ptr[0] = 0;
    for (int64_t r = 0; r < a.num_nodes; r++) a.ptr[r + 1] = a.ptr[r] + degree[a.nodes[r]];
    for (int64_t n = 0; n < a.num_nodes; n++) rank[n] = a.ptr[rank[n]];  // from here on where its next edge goes
    for (int64_t e = 0; e < a.num_edges; e++) {
        const int64_t at = rank[a.destination[e]]++;
        a.order[at] = e;
        a.sorted_source[at] = a.source[e];
        a.sorted_destination[at] = a.destination[e];
    }
}
