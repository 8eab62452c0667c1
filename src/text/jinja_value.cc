#include "text/jinja_value.h"

#include <algorithm>
#include <numeric>

#include "text/jinja_error.h"
#include "text/jinja_unicode.h"

namespace dspark::jinja {
namespace {

constexpr size_t kObjectOverhead = 112;  // control block, allocator, the object's own fields
constexpr size_t kSmallDict = 12;        // entries up to which a linear search is as fast

int64_t range_length(int64_t start, int64_t stop, int64_t step) {
  const Int distance = step > 0 ? Int{stop} - start : Int{start} - stop;
  const Int stride = step > 0 ? Int{step} : -Int{step};
  return distance <= 0 ? 0 : static_cast<int64_t>((distance + stride - 1) / stride);
}

int deepest(const Values& values) {
  int depth = 0;
  for (const Value& value : values) depth = std::max(depth, value.depth());
  return depth;
}

}  // namespace

Object::Object(Heap* heap, size_t bytes, int depth)
    : heap_(heap), bytes_(bytes + kObjectOverhead), depth_(depth) {
  if (heap_ != nullptr) heap_->grow(bytes_);
}

Object::~Object() {
  if (heap_ != nullptr) heap_->shrink(bytes_);
}

const std::string& Value::str() const {
  return string_obj().text;
}
const StringObj& Value::string_obj() const {
  return static_cast<const StringObj&>(*object_);
}
const std::vector<Value>& Value::items() const {
  return static_cast<const SeqObj&>(*object_).values;
}
const DictObj& Value::dict() const {
  return static_cast<const DictObj&>(*object_);
}

StringObj::StringObj(Heap* heap, std::string s, bool is_markup)
    : Object(heap, s.size(), 1), text(std::move(s)), n_chars(count_code_points(text)), markup(is_markup) {}

SeqObj::SeqObj(Heap* heap, Values v, int depth, const char* view)
    : Object(heap, v.size() * sizeof(Value), depth), values(std::move(v)), view_name(view) {}

DictObj::DictObj(Heap* heap, std::vector<Entry> e, int depth)
    : Object(heap, e.size() * (sizeof(Entry) + sizeof(uint32_t)), depth), entries(std::move(e)) {
  if (entries.size() <= kSmallDict) return;
  for (uint32_t i = 0; i < entries.size(); ++i) {
    if (entries[i].first.is_string()) by_key_.push_back(i);
  }
  std::sort(by_key_.begin(), by_key_.end(),
            [this](uint32_t a, uint32_t b) { return entries[a].first.str() < entries[b].first.str(); });
}

int64_t DictObj::index_of(std::string_view key) const {
  if (entries.size() <= kSmallDict) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].first.is_string() && entries[i].first.str() == key) return static_cast<int64_t>(i);
    }
    return -1;
  }
  const auto at = std::lower_bound(
      by_key_.begin(), by_key_.end(), key,
      [this](uint32_t i, std::string_view k) { return std::string_view(entries[i].first.str()) < k; });
  return at != by_key_.end() && entries[*at].first.str() == key ? int64_t{*at} : -1;
}

RangeObj::RangeObj(Heap* heap, int64_t a, int64_t b, int64_t s)
    : Object(heap, 0, 1), start(a), stop(b), step(s), length(range_length(a, b, s)) {}

IteratorObj::IteratorObj(Heap* heap, Values v, int depth)
    : Object(heap, v.size() * sizeof(Value), depth), values(std::move(v)) {}

Value* NamespaceObj::find(std::string_view name) {
  heap_->work(1 + fields_.size() / 8);
  for (auto& field : fields_) {
    if (field.first == name) return &field.second;
  }
  return nullptr;
}

void NamespaceObj::set(std::string_view name, Value value) {
  if (Value* field = find(name)) {
    *field = std::move(value);
  } else {
    // Held until the end of the render, so never given back.
    heap_->grow(name.size() + sizeof fields_[0]);
    fields_.emplace_back(std::string(name), std::move(value));
  }
}

Heap::~Heap() {
  for (const auto& object : kept_) object->drop();
}

Value Heap::string(std::string s, bool markup) {
  check_string(s.size());
  work_bytes(s.size());
  return {Kind::kString, std::make_shared<StringObj>(this, std::move(s), markup)};
}

Value Heap::sequence(Kind kind, Values values, const char* name) {
  check_items(values.size());
  const int depth = depth_above(deepest(values));
  return {kind, std::make_shared<SeqObj>(this, std::move(values), depth, name)};
}

Value Heap::iterator(Values values) {
  check_items(values.size());
  const int depth = depth_above(deepest(values));
  return {Kind::kIterator, std::make_shared<IteratorObj>(this, std::move(values), depth)};
}

Value Heap::dict(std::vector<DictObj::Entry> entries) {
  check_items(entries.size());
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, key.depth(), value.depth()});
  depth = depth_above(depth);
  return {Kind::kDict, std::make_shared<DictObj>(this, std::move(entries), depth)};
}

Value Heap::range(Int start, Int stop, Int step) {
  if (step == 0) fail(ErrorKind::kValue, "range() arg 3 must not be zero");
  constexpr Int kLargest = Int{1} << 62;
  for (Int bound : {start, stop, step}) {
    if (bound > kLargest || bound < -kLargest) fail(ErrorKind::kOverflow, "range() argument is too large");
  }
  auto object = std::make_shared<RangeObj>(this, static_cast<int64_t>(start), static_cast<int64_t>(stop),
                                           static_cast<int64_t>(step));
  if (object->length > limits_.max_range) {
    fail(ErrorKind::kOverflow, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (" +
                                   std::to_string(limits_.max_range) + ").");
  }
  return {Kind::kRange, std::move(object)};
}

Value Heap::undefined(std::string message, bool unsafe) {
  work(1);
  return {Kind::kUndefined, std::make_shared<UndefinedObj>(this, std::move(message), unsafe)};
}

Value Heap::name_space() {
  auto object = std::make_shared<NamespaceObj>(this);
  keep(object);
  return {Kind::kNamespace, std::move(object)};
}

void Heap::keep(std::shared_ptr<Kept> object) {
  if (kept_.size() >= limits_.max_kept_objects) too_much("number of namespaces, macros and loops");
  kept_.push_back(std::move(object));
}

void Heap::check_items(size_t n) {
  if (n > limits_.max_items) too_much("list length");
  work(1 + n / 4);
}

int Heap::depth_above(int depth_of_members) const {
  if (depth_of_members >= limits_.max_value_depth) too_much("nesting of values");
  return depth_of_members + 1;
}

void Heap::too_much(const char* what) const {
  fail(ErrorKind::kLimit, std::string("the template exceeds the limit on ") + what);
}

void TextBuilder::add(std::string_view s) {
  heap_.check_string(text_.size() + s.size());
  heap_.work_bytes(s.size());
  heap_.grow(s.size());
  counted_ += s.size();
  text_.append(s);
}

std::string TextBuilder::take() {
  heap_.shrink(counted_);
  counted_ = 0;
  return std::move(text_);
}

Value constant_string(std::string s) {
  return {Kind::kString, std::make_shared<StringObj>(nullptr, std::move(s), false)};
}

}  // namespace dspark::jinja
