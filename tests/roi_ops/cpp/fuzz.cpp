// Runs the CPU kernels on random geometry, meant to be compiled with sanitizers:
//
//     fuzz [--seconds S | --cases N] [--seed SEED]
//
// Every tensor lies in a heap block of exactly its size, so a wrong access is seen. Beyond the sanitizers, checked
// are: results are written completely (they are preset to a pattern), are the same bit for bit on one and on three
// threads, agree between instruction sets, and forward and backward are adjoint. test_cpu_sanitizers.py builds it.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "call.h"

using namespace roi;

namespace {

struct Random {
  uint64_t state;
  uint64_t bits() {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  int below(int n) { return int(bits() % uint64_t(n)); }
  int between(int a, int b) { return a + below(b - a + 1); }
  double real(double a = 0, double b = 1) { return a + (b - a) * double(bits() >> 11) * 0x1p-53; }
  bool chance(double p) { return real() < p; }
  template <class T, size_t N>
  T pick(const T (&values)[N]) {
    return values[below(int(N))];
  }
};

size_t size_of(Type type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : 2; }

// A random number of the type, of moderate size, sometimes special.
void put(Random& r, Type type, char* at, bool special) {
  double x = r.real(-1, 1);
  if (special && r.chance(0.02)) {
    const double odd[] = {0.0, -0.0, 1e30, -1e30, INFINITY, -INFINITY, NAN};
    x = r.pick(odd);
  }
  const float f = float(x);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (type == FLOAT64) {
    std::memcpy(at, &x, 8);
  } else if (type == FLOAT32) {
    std::memcpy(at, &f, 4);
  } else {
    uint16_t half = uint16_t(bits >> 16);
    if (type == FLOAT16 && std::isfinite(f)) half = uint16_t((bits >> 16 & 0x8000) | (0x3000 + r.below(0x0c00)));
    if (type == FLOAT16 && !std::isfinite(f)) half = uint16_t(std::isnan(f) ? 0x7e00 : f > 0 ? 0x7c00 : 0xfc00);
    std::memcpy(at, &half, 2);
  }
}

double get(Type type, const char* at) {
  if (type == FLOAT64) {
    double x;
    std::memcpy(&x, at, 8);
    return x;
  }
  if (type == FLOAT32) {
    float x;
    std::memcpy(&x, at, 4);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  if (type == BFLOAT16) {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent == 0 ? fraction * 0x1p-24 : (1024 + fraction) * std::ldexp(1.0, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

// A block of memory of exactly its size, preset to a pattern that no result has.
struct Block {
  std::vector<char> bytes;
  explicit Block(size_t n = 0) : bytes(n, char(0xa5)) { bytes.shrink_to_fit(); }
  char* data() { return bytes.data(); }
};

struct Shape {
  int64_t n[4];
  int64_t count() const { return n[0] * n[1] * n[2] * n[3]; }
};

// Strides of a random layout: dense in a random order, or with gaps, or with an expanded axis.
Tensor lay_out(Random& r, const Shape& shape, Block& block, Type type, bool special) {
  int order[4] = {0, 1, 2, 3};
  const int style = r.below(5);
  if (style == 1) {  // channels last
    order[1] = 2, order[2] = 3, order[3] = 1;
  } else if (style == 2) {
    for (int i = 3; i > 0; --i) std::swap(order[i], order[r.below(i + 1)]);
  }
  Tensor t{};
  int64_t step = 1;
  for (int i = 3; i >= 0; --i) {
    t.stride[order[i]] = step;
    step *= shape.n[order[i]] + (style == 3 ? r.below(3) : 0);
  }
  if (style == 4) t.stride[r.below(4)] = 0;
  int64_t last = 0;
  for (int i = 0; i < 4; ++i) last += (shape.n[i] - 1) * t.stride[i];
  const size_t elements = shape.count() ? size_t(last) + 1 : 0;
  block = Block(elements * size_of(type));
  for (size_t i = 0; i < elements; ++i) put(r, type, block.data() + i * size_of(type), special);
  t.data = block.data();
  return t;
}

double at(const Tensor& t, Type type, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t i = a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3];
  return get(type, static_cast<const char*>(t.data) + i * int64_t(size_of(type)));
}

double coordinate(Random& r, double length, bool wild) {
  if (wild && r.chance(0.1)) {
    const double odd[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 3.4e38, -3.4e38, 1e9, -1e9, 30000, 1e-30, 16777216};
    return r.pick(odd);
  }
  const double form = r.real();
  if (form < 0.6) return r.real(0, length);
  if (form < 0.8) return r.real(-length, 2 * length);
  if (form < 0.9) return r.between(-2, int(length) + 2);
  return r.chance(0.5) ? 0 : length;
}

[[noreturn]] void fail(uint64_t seed, const char* what) {
  std::fprintf(stderr, "FAILED, seed %llu: %s\n", static_cast<unsigned long long>(seed), what);
  std::exit(1);
}

struct Case {
  Random r;
  uint64_t seed;
  Call call{};
  bool special, wild;
  std::vector<double> scales;
  std::vector<Map> features, gradients;
  std::vector<Block> feature_blocks, gradient_blocks;
  Block boxes, grad, argmax;
  Shape out_shape;

  explicit Case(uint64_t s) : r{s}, seed(s) {
    const Type types[] = {FLOAT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16};
    const int ratios[] = {-1, 0, 1, 2, 3, 7, 100};
    special = r.chance(0.2);
    wild = r.chance(0.4);
    call.kind = Kind(r.below(6));
    call.type = r.pick(types);
    call.images = r.between(1, 3);
    call.channels = r.chance(0.8) ? r.between(1, 40) : r.between(1, 600);
    call.pooled_h = r.between(1, 9);
    call.pooled_w = r.between(1, 9);
    call.sampling_ratio = r.pick(ratios);
    call.rois = r.between(0, 40);
    call.levels = r.between(1, 4);
    call.k_min = call.levels > 1 ? 2 : 0;
    call.k_max = call.k_min + call.levels - 1;
    call.canonical_scale = r.chance(0.5) ? 224 : r.between(1, 300);
    call.canonical_level = 4;
    const double finest = call.levels > 1 ? 0.25 : r.chance(0.5) ? 1.0 : r.real(0.03, 2);
    const int h = r.between(1, 50), w = r.between(1, 70);
    features.resize(size_t(call.levels));
    gradients.resize(features.size());
    feature_blocks.resize(features.size());
    gradient_blocks.resize(features.size());
    for (int l = 0; l < call.levels; ++l) {
      scales.push_back(finest / (1 << l));
      Map& f = features[size_t(l)];
      f.height = std::max(h >> l, r.chance(0.02) ? 0 : 1);
      f.width = std::max(w >> l, 1);
      const Shape shape{{call.images, call.channels, f.height, f.width}};
      f.tensor = lay_out(r, shape, feature_blocks[size_t(l)], call.type, special);
      Map& g = gradients[size_t(l)];
      g = f;
      const int64_t c = call.channels, p = int64_t(f.height) * f.width;
      const bool last = r.chance(0.5);
      const int64_t dense[2][4] = {{c * p, p, f.width, 1}, {c * p, 1, f.width * c, c}};
      std::memcpy(g.tensor.stride, dense[last], sizeof(g.tensor.stride));
      g.zeroed = r.chance(0.3);
      gradient_blocks[size_t(l)] = Block(size_t(shape.count()) * size_of(call.type));
    }
    const bool is_double = call.type == FLOAT64;
    boxes = Block(size_t(call.rois) * 5 * (is_double ? 8 : 4));
    for (int64_t i = 0; i < call.rois; ++i) {
      double b[5] = {double(r.below(call.images)), 0, 0, 0, 0};
      for (int side = 1; side < 5; ++side) b[side] = coordinate(r, (side % 2 ? w : h) / finest, wild);
      if (!r.chance(0.1)) {
        if (b[3] < b[1]) std::swap(b[1], b[3]);
        if (b[4] < b[2]) std::swap(b[2], b[4]);
      }
      for (int side = 0; side < 5; ++side) {
        char* to = boxes.data() + (i * 5 + side) * (is_double ? 8 : 4);
        const float f = float(b[side]);
        std::memcpy(to, is_double ? static_cast<void*>(&b[side]) : static_cast<const void*>(&f), is_double ? 8 : 4);
      }
    }
    out_shape = {{call.rois, call.channels, call.pooled_h, call.pooled_w}};
    call.boxes = boxes.data();
    call.scales = scales.data();
    call.features = features.data();
    call.gradients = gradients.data();
    call.channels_last = r.chance(0.5);
    call.grad = lay_out(r, out_shape, grad, call.type, special);
    const int64_t ph = call.pooled_h, pw = call.pooled_w, c = call.channels;
    call.argmax = {nullptr, {c * ph * pw, ph * pw, pw, 1}};
    if (call.channels_last) call.argmax = {nullptr, {c * ph * pw, 1, pw * c, c}};
  }

  double out_at(char* out, int64_t k, int64_t c, int64_t y, int64_t x) const {
    Tensor t = call.argmax;  // has the strides of the output
    t.data = out;
    return at(t, call.type, k, c, y, x);
  }

  void clear_gradients() {
    for (size_t l = 0; l < gradients.size(); ++l) {
      std::memset(gradient_blocks[l].data(), gradients[l].zeroed ? 0 : 0xa5, gradient_blocks[l].bytes.size());
      gradients[l].tensor.data = gradient_blocks[l].data();
    }
  }

  // Every result of one operator with the given kernels, one after another.
  std::vector<std::vector<char>> results(const Kernels& k, int threads) {
    call.threads = threads;
    const size_t count = size_t(out_shape.count()), element = size_of(call.type);
    const size_t boxes_bytes = boxes.bytes.size();
    std::vector<std::vector<char>> all;
    const auto keep = [&](Block& b) { all.push_back(b.bytes); };
    const auto ok = [&](Status s) {
      if (s != OK) fail(seed, "out of memory");
    };
    Block out(count * element), positions(count * 4), gathered(count * element), box_gradient(boxes_bytes);
    call.out = out.data();
    call.out_argmax = positions.data();
    const bool max = call.kind >= POOL;
    ok(max ? k.max_forward(call) : k.linear_forward(call));
    keep(out);
    if (max) {
      keep(positions);
      argmax = positions;
      if (r.chance(0.1)) {  // positions from elsewhere must do no harm
        for (char& b : argmax.bytes) {
          if (r.chance(0.01)) b = char(r.below(256));
        }
      }
      call.argmax.data = argmax.data();
      call.out = gathered.data();
      const bool last = call.channels_last;
      call.channels_last = false;
      ok(max_gather(call));
      call.channels_last = last;
      keep(gathered);
    }
    call.out = box_gradient.data();
    if (call.kind != POOL) {
      ok(max ? max_backward_boxes(call) : k.linear_backward_boxes(call));
      keep(box_gradient);
    }
    clear_gradients();
    ok(max ? max_backward_features(call) : k.linear_backward_features(call));
    for (Block& b : gradient_blocks) keep(b);
    return all;
  }

  // <G, A F> = <A^T G, F>, in double precision from what the kernels gave.
  void check_adjoint(std::vector<std::vector<char>>& all) {
    double forward = 0, backward = 0, size = 1e-30;
    for (int64_t k = 0; k < call.rois; ++k)
      for (int64_t c = 0; c < call.channels; ++c)
        for (int y = 0; y < call.pooled_h; ++y)
          for (int x = 0; x < call.pooled_w; ++x) {
            const double term = out_at(all[0].data(), k, c, y, x) * at(call.grad, call.type, k, c, y, x);
            forward += term;
            size += std::fabs(term);
          }
    for (size_t l = 0; l < gradients.size(); ++l)
      for (int64_t n = 0; n < call.images; ++n)
        for (int64_t c = 0; c < call.channels; ++c)
          for (int y = 0; y < features[l].height; ++y)
            for (int x = 0; x < features[l].width; ++x) {
              const double term = at(gradients[l].tensor, call.type, n, c, y, x) *
                                  at(features[l].tensor, call.type, n, c, y, x);
              backward += term;
              size += std::fabs(term);
            }
    const double precision = call.type == FLOAT64 ? 1e-12 : call.type == FLOAT32 ? 1e-4 : 2e-2;
    if (!(std::fabs(forward - backward) <= precision * size)) fail(seed, "forward and backward are not adjoint");
  }

  void check_same(const std::vector<char>& a, const std::vector<char>& b, Type type, double precision,
                  const char* what) {
    double largest = 1;
    for (size_t i = 0; i + size_of(type) <= a.size(); i += size_of(type)) {
      const double x = get(type, a.data() + i);
      if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
    }
    for (size_t i = 0; i + size_of(type) <= a.size(); i += size_of(type)) {
      const double x = get(type, a.data() + i), y = get(type, b.data() + i);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      if (!(std::fabs(x - y) <= precision * largest)) fail(seed, what);
    }
  }

  void run() {
    const int64_t bad = first_bad_image(call.boxes, call.rois, call.type == FLOAT64, call.images);
    if (bad >= 0) fail(seed, "an image index that exists was refused");
    const Random before = r;
    std::vector<std::vector<char>> first;
    for (const char* name : {"baseline", "avx2", "avx512"}) {
      const Kernels* k = named_kernels(name);
      if (!k) continue;
      r = before;
      std::vector<std::vector<char>> one = results(*k, 1);
      // Positions are damaged at random above: the same way for both.
      r = before;
      std::vector<std::vector<char>> three = results(*k, 3);
      if (one != three) fail(seed, "one and three threads give different bits");
      if (call.kind < POOL && !special && !wild) check_adjoint(one);
      if (first.empty()) {
        first = one;
      } else if (!special && !wild && call.kind < POOL) {
        const double precision = call.type == FLOAT64 ? 1e-11 : call.type == FLOAT32 ? 1e-4 : 2e-2;
        check_same(first[0], one[0], call.type, precision, "instruction sets disagree on the result");
        check_same(first[1], one[1], call.type == FLOAT64 ? FLOAT64 : FLOAT32, call.type == FLOAT64 ? 1e-10 : 1e-3,
                   "instruction sets disagree on the gradient of the boxes");
        for (size_t l = 2; l < one.size(); ++l) {
          check_same(first[l], one[l], call.type, precision, "instruction sets disagree on the gradient");
        }
      } else if (call.kind >= POOL && first[1] != one[1]) {
        fail(seed, "instruction sets disagree on where a maximum is");
      }
    }
    // Nothing of the pattern may be left; 0xa5a5.. is no result of numbers of moderate size.
    for (size_t i = 0; !special && i + 8 <= first[0].size(); i += 8) {
      const char pattern[8] = {char(0xa5), char(0xa5), char(0xa5), char(0xa5),
                               char(0xa5), char(0xa5), char(0xa5), char(0xa5)};
      if (std::memcmp(first[0].data() + i, pattern, 8) == 0) fail(seed, "a result was not written");
    }
  }
};

void check_bad_images() {
  const float boxes[] = {0, 1, 1, 2, 2, NAN, 1, 1, 2, 2};
  const double others[] = {1, 1, 1, 2, 2, 2, 1, 1, 2, 2, -1, 1, 1, 2, 2};
  if (first_bad_image(boxes, 2, false, 1) != 1) fail(0, "an image index of NaN");
  if (first_bad_image(others, 1, true, 2) != -1) fail(0, "a right image index");
  if (first_bad_image(others, 2, true, 2) != 1) fail(0, "an image index too large");
  if (first_bad_image(others + 10, 1, true, 2) != 0) fail(0, "a negative image index");
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0;
  uint64_t cases = 200, seed = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--seconds") seconds = std::atof(argv[i + 1]);
    if (name == "--cases") cases = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--seed") seed = std::strtoull(argv[i + 1], nullptr, 10);
  }
  check_bad_images();
  const auto begun = std::chrono::steady_clock::now();
  uint64_t done = 0;
  for (;; ++done) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
    if (seconds > 0 ? spent.count() >= seconds : done >= cases) break;
    Case(seed + done).run();
  }
  std::printf("%llu cases from seed %llu: no finding\n", static_cast<unsigned long long>(done),
              static_cast<unsigned long long>(seed));
  return 0;
}
