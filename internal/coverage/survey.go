package coverage

import (
	"context"
	"maps"
	"slices"

	"cdrbus/internal/cdr"
)

// Survey reads what the receipts of sources tell of a span. Where a source's receipts
// lie, its shard, says placed. The reports are in the order of the names.
func (r *Reader) Survey(ctx context.Context, placed map[cdr.SourceName]int, span cdr.Span, progress Progress) ([]Report, error) {
	shards := map[int]map[cdr.SourceName]*Map{}
	for source, shard := range placed {
		if shards[shard] == nil {
			shards[shard] = map[cdr.SourceName]*Map{}
		}
		shards[shard][source] = newSurvey(span)
	}
	reports := map[cdr.SourceName]Report{}
	for i, shard := range slices.Sorted(maps.Keys(shards)) {
		if err := r.surveyShard(ctx, shard, shards[shard], span, progress.part(i, len(shards))); err != nil {
			return nil, err
		}
		for source, m := range shards[shard] {
			reports[source] = m.Report(source, span)
		}
	}
	var out []Report
	for _, source := range slices.Sorted(maps.Keys(reports)) {
		out = append(out, reports[source])
	}
	return out, nil
}

func (r *Reader) surveyShard(ctx context.Context, shard int, maps map[cdr.SourceName]*Map, span cdr.Span, progress Progress) error {
	from, err := r.OffsetFor(ctx, shard, span.StartInclusive)
	if err != nil {
		return err
	}
	next, err := r.Fold(ctx, shard, from, maps, progress)
	if err != nil {
		return err
	}
	if err := r.Last(ctx, shard, from, maps, progress); err != nil {
		return err
	}
	for source, m := range maps {
		if m.moved {
			if maps[source], err = r.refold(ctx, shard, next, source, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// part is the progress of the i-th of n reads, as one of the whole.
func (p Progress) part(i, n int) Progress {
	if p == nil {
		return nil
	}
	return func(done, total int64) { p(int64(i)*total+done, int64(n)*total) }
}
