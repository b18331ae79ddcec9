// The Python module roi_ops.cpu._kernels: plain numbers in, results at the addresses given.
//
// roi_ops/cpu/__init__.py is its only caller and answers for the addresses; nothing here knows PyTorch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "call.h"
#include "threads.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace nb = nanobind;

namespace {

const roi::Kernels* chosen = nullptr;

const roi::Kernels& kernels() {
  if (!chosen) chosen = roi::best_kernels();
  return *chosen;
}

// Numbers of a flat Python list, one after another.
class Reader {
 public:
  explicit Reader(const nb::list& list) : list_(list) {}

  int64_t integer() {
    const long long value = PyLong_AsLongLong(next());
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    return value;
  }
  double real() {
    PyObject* value = next();
    if (!PyFloat_Check(value)) throw nb::type_error("a float is expected where an integer is");
    return PyFloat_AsDouble(value);
  }
  bool done() const { return at_ == PyList_GET_SIZE(list_.ptr()); }

  roi::Tensor tensor() {
    roi::Tensor t;
    t.data = reinterpret_cast<void*>(integer());
    for (int64_t& stride : t.stride) stride = integer();
    return t;
  }
  roi::Map map() {
    roi::Map m{};
    m.height = int(integer());
    m.width = int(integer());
    m.tensor = tensor();
    return m;
  }

 private:
  PyObject* next() {
    if (done()) throw std::invalid_argument("too few numbers");
    return PyList_GET_ITEM(list_.ptr(), at_++);
  }

  const nb::list& list_;
  Py_ssize_t at_ = 0;
};

// A Call and the memory it points to.
struct Arguments {
  roi::Call call{};
  std::vector<roi::Map> features, gradients;
  std::vector<double> scales;
};

enum Operator { LINEAR_FORWARD, LINEAR_FEATURES, LINEAR_BOXES, MAX_FORWARD, MAX_GATHER, MAX_FEATURES, MAX_BOXES };

// The order is that of _run and of its callers in __init__.py; tests/roi_ops/test_cpu_arguments.py changes the kind and
// the number of every argument and expects an error.
void read(const nb::list& list, Operator op, Arguments& a) {
  Reader r(list);
  roi::Call& c = a.call;
  c.kind = roi::Kind(r.integer());
  c.type = roi::Type(r.integer());
  c.threads = int(r.integer());
  c.images = int(r.integer());
  c.channels = int(r.integer());
  c.rois = r.integer();
  c.boxes = reinterpret_cast<const void*>(r.integer());
  c.pooled_h = int(r.integer());
  c.pooled_w = int(r.integer());
  c.sampling_ratio = int(r.integer());
  c.k_min = int(r.integer());
  c.k_max = int(r.integer());
  c.canonical_scale = r.real();
  c.canonical_level = r.real();
  c.levels = int(r.integer());
  for (int l = 0; l < c.levels; ++l) {
    a.scales.push_back(r.real());
    a.features.push_back(r.map());
  }
  const bool max = op >= MAX_FORWARD;
  if (op != LINEAR_FORWARD && op != MAX_FORWARD && op != MAX_GATHER) c.grad = r.tensor();
  if (max && op != MAX_FORWARD) c.argmax = r.tensor();
  if (op == LINEAR_FEATURES || op == MAX_FEATURES) {
    for (int l = 0; l < c.levels; ++l) {
      roi::Map map = a.features[l];
      map.zeroed = r.integer() != 0;
      map.tensor = r.tensor();
      a.gradients.push_back(map);
    }
  } else {
    c.channels_last = r.integer() != 0;
    c.out = reinterpret_cast<void*>(r.integer());
    if (op == MAX_FORWARD) c.out_argmax = reinterpret_cast<void*>(r.integer());
  }
  if (!r.done()) throw std::invalid_argument("too many numbers");
  c.features = a.features.data();
  c.gradients = a.gradients.data();
  c.scales = a.scales.data();
}

// Runs one operator. Returns -1, or the first box whose image index is out of range: then nothing was computed.
int64_t run(int op, const nb::list& list) {
  Arguments a;
  read(list, Operator(op), a);
  const roi::Call& call = a.call;
  const roi::Kernels& k = kernels();
  decltype(k.linear_forward) const operators[] = {k.linear_forward, k.linear_backward_features,
                                                  k.linear_backward_boxes, k.max_forward, roi::max_gather,
                                                  roi::max_backward_features, roi::max_backward_boxes};
  nb::gil_scoped_release release;
  const int64_t bad = roi::first_bad_image(call.boxes, call.rois, call.type == roi::FLOAT64, call.images);
  if (bad >= 0) return bad;
  if (operators[op](call) == roi::OUT_OF_MEMORY) throw std::bad_alloc();
  return -1;
}

// Uses the kernels of an instruction set from now on; "" for the best. Returns the name of those in use.
std::string use(const std::string& name) {
  const roi::Kernels* wanted = name.empty() ? roi::best_kernels() : roi::named_kernels(name.c_str());
  if (!wanted) throw std::invalid_argument("this processor or build has no kernels \"" + name + "\"");
  chosen = wanted;
  return chosen->name;
}

#if defined(__linux__)

constexpr int64_t PAGE = 4096;

// A range of fresh memory that several threads fault in.
struct Filling {
  static constexpr int64_t STEP = 8 << 20;
  int64_t begin, end, next;

  static void work(void* context) {
#if defined(MADV_POPULATE_WRITE)
    Filling& f = *static_cast<Filling*>(context);
    for (;;) {
      const int64_t at = __atomic_fetch_add(&f.next, STEP, __ATOMIC_RELAXED);
      if (at >= f.end) break;
      const int64_t size = f.end - at < STEP ? f.end - at : STEP;
      if (madvise(reinterpret_cast<void*>(at), size_t(size), MADV_POPULATE_WRITE) != 0) break;  // Linux before 5.14
    }
#else
    (void)context;
#endif
  }
};

#endif

// Prepares memory that is about to be filled for the first time. To fault it in by pages of 4 KB, as it is
// written, takes several times as long as to compute what goes there: ask for large pages, and for all of them at
// once. Only hints: contents do not change, and nothing is lost where the system does not take them.
void expect_filling(int64_t address, int64_t bytes, int threads) {
#if defined(__linux__)
  nb::gil_scoped_release release;
  Filling filling{(address + PAGE - 1) / PAGE * PAGE, (address + bytes) / PAGE * PAGE, 0};
  if (filling.begin >= filling.end) return;
  filling.next = filling.begin;
#if defined(MADV_HUGEPAGE)
  madvise(reinterpret_cast<void*>(filling.begin), size_t(filling.end - filling.begin), MADV_HUGEPAGE);
#endif
  roi::run_parallel(threads, Filling::work, &filling);
#else
  (void)address;
  (void)bytes;
  (void)threads;
#endif
}

}  // namespace

// Version of the list of numbers that run() takes. __init__.py holds the same: an editable install runs new Python
// on the library of an old build.
constexpr int INTERFACE = 1;

NB_MODULE(_kernels, m) {
  m.attr("INTERFACE") = INTERFACE;
  m.def("run", &run);
  m.def("use", &use);
  m.def("expect_filling", &expect_filling);
}
