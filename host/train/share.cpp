#include "host/train/share.h"

namespace dapo {

void ByteWriter::put(const Verdict& v) {
  put(v.score), put(v.acc), put(v.found), put(v.error);
  put(v.pred), put(v.reason), put(v.terms);
}

void ByteReader::get(Verdict& v) {
  get(v.score), get(v.acc), get(v.found), get(v.error);
  get(v.pred), get(v.reason), get(v.terms);
}

void ByteWriter::put(const Sample& s) {
  put(s.response.ids);
  put(s.response.log_prob);
  put(s.response.finish);
  put(s.verdict);
}

void ByteReader::get(Sample& s) {
  get(s.response.ids);
  get(s.response.log_prob);
  get(s.response.finish);
  get(s.verdict);
}

}  // namespace dapo
