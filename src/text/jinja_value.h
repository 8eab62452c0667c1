#pragma once
// Dynamic values of the template language: Python's objects as far as chat templates can see them.
//
// Containers are immutable (the sandbox refuses list.append and the like), so values share them freely. What
// can change - namespaces, cyclers, one-shot iterators, loop state - lives as long as the render and is
// emptied at its end, which breaks every reference cycle. All objects are counted by the Heap of one render.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dspark::jinja {

/// Python's int as far as it goes here: 128 bits, overflow is an error.
__extension__ typedef __int128 Int;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,      // dict.keys(), values(), items()
  kIterator,  // what map, select and other lazy filters give: can be walked once, has no length
  kNamespace,
  kFunction,  // global function
  kMethod,    // method bound to its object
  kMacro,
  kLoop,
  kCycler,
  kJoiner,
};

/// Ceilings of one render, far above what real conversations need.
struct Limits {
  size_t max_string_bytes = size_t{16} << 20;  // any string, and the output
  size_t max_live_bytes = size_t{256} << 20;   // all values alive at one time
  size_t max_items = 500'000;                  // elements of one list
  uint64_t max_work = 20'000'000;              // evaluated nodes, handled elements, blocks of bytes
  uint64_t max_loop_steps = 2'000'000;         // iterations of all loops together
  int max_eval_depth = 600;                    // nested evaluations, through macros too
  int max_value_depth = 200;                   // lists in lists
  size_t max_kept_objects = 100'000;  // namespaces, loops and scopes kept until the end of the render
  int64_t max_range = 100'000;        // as in Jinja's sandbox
};

class Heap;

/// Base of everything a Value points to. Counts its bytes in the heap for as long as it lives.
class Object {
 public:
  Object(Heap* heap, size_t bytes, int depth);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  /// 1 + the depth of the deepest member; at most Limits::max_value_depth, so that destruction, printing and
  /// comparing may recurse.
  int depth() const { return depth_; }

 private:
  Heap* heap_;  // null for constants of the parsed template
  size_t bytes_;
  int depth_;
};

struct StringObj;
struct SeqObj;
struct DictObj;

/// One value; cheap to copy. The default is Undefined without a message.
class Value {
 public:
  Value() : int_(0) {}
  Value(Kind kind, std::shared_ptr<Object> object) : int_(0), object_(std::move(object)), kind_(kind) {}
  static Value none() { return Value(Kind::kNone, nullptr); }
  static Value boolean(bool b) {
    Value v(Kind::kBool, nullptr);
    v.int_ = b ? 1 : 0;
    return v;
  }
  static Value integer(Int i) {
    Value v(Kind::kInt, nullptr);
    v.int_ = i;
    return v;
  }
  static Value real(double d) {
    Value v(Kind::kFloat, nullptr);
    v.float_ = d;
    return v;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_int_or_bool() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_int_or_bool() || kind_ == Kind::kFloat; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  /// requires: is_int_or_bool().
  Int as_int() const { return int_; }
  /// requires: is_number().
  double as_double() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(int_); }
  /// requires: is_string().
  const std::string& str() const;
  const StringObj& string_obj() const;
  /// requires: list, tuple or view.
  const std::vector<Value>& items() const;
  /// requires: is(Kind::kDict).
  const DictObj& dict() const;
  const std::shared_ptr<Object>& object() const { return object_; }
  /// requires: the kind fits T.
  template <typename T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  /// Depth of the object, 0 for scalars.
  int depth() const { return object_ ? object_->depth() : 0; }

 private:
  union {
    Int int_;
    double float_;
  };
  std::shared_ptr<Object> object_;
  Kind kind_ = Kind::kUndefined;
};

using Values = std::vector<Value>;

/// Undefined with the message that its use will raise.
struct UndefinedObj final : Object {
  UndefinedObj(Heap* heap, std::string text, bool is_unsafe)
      : Object(heap, text.size() + 64, 1), message(std::move(text)), unsafe(is_unsafe) {}
  std::string message;
  bool unsafe;  // an attribute the sandbox refuses: SecurityError instead of UndefinedError
};

struct StringObj final : Object {
  StringObj(Heap* heap, std::string s, bool is_markup);
  const std::string text;
  const size_t n_chars;  // code points
  const bool markup;     // markupsafe.Markup: adding to it escapes
  bool ascii() const { return n_chars == text.size(); }
};

/// list, tuple, dict view.
struct SeqObj final : Object {
  SeqObj(Heap* heap, Values v, int depth, const char* view);
  const Values values;
  const char* view_name;  // "dict_keys", ... for views; "group" for the pairs of groupby
};

struct DictObj final : Object {
  using Entry = std::pair<Value, Value>;
  /// requires: keys unique and hashable.
  DictObj(Heap* heap, std::vector<Entry> e, int depth);
  /// Position of a string key in `entries`, -1 when absent.
  int64_t index_of(std::string_view key) const;
  /// The value of a string key, or null.
  const Value* find(std::string_view key) const {
    const int64_t at = index_of(key);
    return at < 0 ? nullptr : &entries[static_cast<size_t>(at)].second;
  }
  const std::vector<Entry> entries;

 private:
  std::vector<uint32_t>
      by_key_;  // entries with string keys in the order of their keys; empty for small dicts
};

struct RangeObj final : Object {
  RangeObj(Heap* heap, int64_t a, int64_t b, int64_t s);
  const int64_t start, stop, step;
  const int64_t length;
};

struct IteratorObj final : Object {
  IteratorObj(Heap* heap, Values v, int depth);
  Values values;
  size_t next = 0;
};

/// Something that can change and so become part of a reference cycle: the heap keeps it until the render ends
/// and then calls drop() on all of them before it lets go of any.
struct Kept {
  virtual ~Kept() = default;
  /// Lets go of every Value it holds.
  virtual void drop() noexcept = 0;
};

struct NamespaceObj final : Object, Kept {
  explicit NamespaceObj(Heap* heap) : Object(heap, 128, 1), heap_(heap) {}
  /// Null when there is no such field.
  Value* find(std::string_view name);
  void set(std::string_view name, Value value);
  void drop() noexcept override { fields_.clear(); }
  const std::vector<std::pair<std::string, Value>>& fields() const { return fields_; }

 private:
  Heap* heap_;
  std::vector<std::pair<std::string, Value>> fields_;
};

struct CyclerObj final : Object {
  CyclerObj(Heap* heap, Values v, int depth) : Object(heap, 64, depth), values(std::move(v)) {}
  const Values values;
  size_t at = 0;
};

struct JoinerObj final : Object {
  JoinerObj(Heap* heap, Value sep) : Object(heap, 64, 1), separator(std::move(sep)) {}
  const Value separator;
  bool used = false;
};

/// Creates the objects of one render and enforces its Limits.
class Heap {
 public:
  explicit Heap(const Limits& limits) : limits_(limits) {}
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  const Limits& limits() const { return limits_; }

  Value string(std::string s, bool markup = false);
  Value list(Values values) { return sequence(Kind::kList, std::move(values), nullptr); }
  Value tuple(Values values) { return sequence(Kind::kTuple, std::move(values), nullptr); }
  Value group(Values values) { return sequence(Kind::kTuple, std::move(values), "group"); }
  Value view(Values values, const char* name) { return sequence(Kind::kView, std::move(values), name); }
  Value iterator(Values values);
  /// requires: keys unique and hashable.
  Value dict(std::vector<DictObj::Entry> entries);
  /// Throws Jinja's error for a range longer than the limit.
  Value range(Int start, Int stop, Int step);
  Value undefined(std::string message, bool unsafe = false);
  /// An empty namespace, kept.
  Value name_space();
  void keep(std::shared_ptr<Kept> object);

  /// Counts `n` steps of work; throws when the render has done too much.
  void work(uint64_t n = 1) {
    work_ += n;
    if (work_ > limits_.max_work) too_much("work");
  }
  /// The same for handling `n` bytes.
  void work_bytes(size_t n) { work(1 + n / 64); }
  /// Throws unless a string of `bytes` may be built; call before building it.
  void check_string(size_t bytes) const {
    if (bytes > limits_.max_string_bytes) too_much("string size");
  }
  /// Throws unless a list of `n` may be built; counts it as work.
  void check_items(size_t n);
  /// Counts one iteration of a loop.
  void loop_step() {
    if (++loop_steps_ > limits_.max_loop_steps) too_much("loop iterations");
  }
  /// Depth of a container of these members; throws when it is too deep.
  int depth_above(int depth_of_members) const;
  [[noreturn]] void too_much(const char* what) const;

  /// Accounting of live bytes; grow throws at the limit.
  void grow(size_t bytes) {
    if (bytes > limits_.max_live_bytes - live_) too_much("memory");
    live_ += bytes;
  }
  void shrink(size_t bytes) { live_ -= bytes; }

 private:
  friend class Object;
  Value sequence(Kind kind, Values values, const char* name);

  Limits limits_;
  size_t live_ = 0;
  uint64_t work_ = 0;
  uint64_t loop_steps_ = 0;
  std::vector<std::shared_ptr<Kept>> kept_;
};

/// Text that grows under the limits of a heap.
class TextBuilder {
 public:
  explicit TextBuilder(Heap& heap) : heap_(heap) {}
  ~TextBuilder() { heap_.shrink(counted_); }
  TextBuilder(const TextBuilder&) = delete;
  TextBuilder& operator=(const TextBuilder&) = delete;
  void add(std::string_view s);
  void add(char c) { add(std::string_view(&c, 1)); }
  Heap& heap() { return heap_; }
  const std::string& text() const { return text_; }
  std::string take();
  /// Printing recurses; namespaces may hold themselves. enter throws when it is too deep.
  void enter() {
    if (++nesting_ > 2 * heap_.limits().max_value_depth) heap_.too_much("nesting of printed values");
  }
  void leave() { --nesting_; }

 private:
  Heap& heap_;
  std::string text_;
  size_t counted_ = 0;
  int nesting_ = 0;
};

/// A string constant of the parsed template, counted by no heap.
Value constant_string(std::string s);

}  // namespace dspark::jinja
