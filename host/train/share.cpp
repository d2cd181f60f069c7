#include "host/train/share.h"

namespace dapo {

void ByteWriter::put(const Sample& s) {
  put(s.response.ids);
  put(s.response.log_prob);
  put(s.response.finish);
  const Verdict& v = s.verdict;
  put(v.score), put(v.acc), put(v.found), put(v.error);
  put(v.pred), put(v.reason), put(v.terms);
}

void ByteReader::get(Sample& s) {
  get(s.response.ids);
  get(s.response.log_prob);
  get(s.response.finish);
  Verdict& v = s.verdict;
  get(v.score), get(v.acc), get(v.found), get(v.error);
  get(v.pred), get(v.reason), get(v.terms);
}

}  // namespace dapo
