usage_hint.o: host/app/usage_hint.cpp host/app/usage_hint.h \
 host/train/settings_names.h
host/app/usage_hint.h:
host/train/settings_names.h:
