// Tiles of the maps, who touches them, and which of them are split.
#pragma once

#include "bins.cuh"

namespace roi {

constexpr int TILE_THREADS = 256;
constexpr int TILE_CHANNELS = 32;
constexpr int TILE_W = 16;
template <class A>
constexpr int TILE_H = sizeof(A) == 4 ? 16 : 8;

// A tile that more RoIs touch than this is summed in so many parts (plan.py has the same numbers).
constexpr int CROWD = 64;
constexpr int PARTS = 8;

struct Tile {
  int level, image, y0, x0, first_channel, channels;
};

template <class A>
ROI_DEVICE Tile tile_of(const BackwardArguments& a, int tile, int slab) {
  Tile t;
  t.level = 0;
  while (tile >= a.tile_begin[t.level + 1]) ++t.level;
  tile -= a.tile_begin[t.level];
  const Level& map = a.call.level[t.level];
  const int across = (map.width + TILE_W - 1) / TILE_W, down = (map.height + TILE_H<A> - 1) / TILE_H<A>;
  t.image = tile / (across * down);
  tile -= t.image * across * down;
  t.y0 = tile / across * TILE_H<A>;
  t.x0 = tile % across * TILE_W;
  t.first_channel = slab * TILE_CHANNELS;
  t.channels = smaller(TILE_CHANNELS, a.call.channels - t.first_channel);
  return t;
}

template <class A>
ROI_DEVICE bool touches(const BackwardArguments& a, int roi, const Tile& tile) {
  const int4 window = *reinterpret_cast<const int4*>(a.bins.window + 4ll * roi);
  return window.x < tile.y0 + TILE_H<A> && window.y > tile.y0 && window.z < tile.x0 + TILE_W && window.w > tile.x0;
}

// Warp: one tile. How many RoIs touch it.
template <class A>
ROI_DEVICE void count_tiles(const BackwardArguments& a) {
  const int tile = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
  int found = 0;
  if (tile < a.tile_begin[a.call.levels]) {
    const Tile t = tile_of<A>(a, tile, 0);
    const int key = t.image * a.call.levels + t.level, length = a.bins.count[key];
    const int* list = a.bins.order + a.bins.begin[key];
    if (length > CROWD) {
      for (int i = lane; i < length; i += WARP) found += touches<A>(a, list[i], t);
    }
  }
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) found += __shfl_xor_sync(ALL_LANES, found, distance);
  if (lane == 0 && tile < a.tile_begin[a.call.levels]) a.crowd.count[tile] = found;
}

// Block: one image. Its slots go to its crowded tiles, in their order.
ROI_DEVICE void give_slots(const BackwardArguments& a) {
  __shared__ int shared[MAX_WARPS];
  const int image = blockIdx.x, slots = a.crowd.slots;
  int given = 0;
  for (int level = 0; level < a.call.levels; ++level) {
    const int tiles = (a.tile_begin[level + 1] - a.tile_begin[level]) / a.call.images;
    const int begin = a.tile_begin[level] + image * tiles;
    for (int base = 0; base < tiles; base += blockDim.x) {
      const int i = base + threadIdx.x, tile = begin + i;
      const bool crowded = i < tiles && a.crowd.count[tile] > CROWD;
      int total;
      const int slot = given + block_scan(crowded, shared, &total);
      const bool gets = crowded && slot < slots;
      if (i < tiles) a.crowd.slot[tile] = gets ? image * slots + slot : -1;
      if (gets) a.crowd.tile[image * slots + slot] = tile;
      given += total;
    }
  }
  for (int slot = given + threadIdx.x; slot < slots; slot += blockDim.x) a.crowd.tile[image * slots + slot] = -1;
}

}  // namespace roi
