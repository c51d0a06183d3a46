import { copyParams } from '../sql/copied-params.ts';
import type { QueryResult, RunResult, SqlParams, SqlValue } from '../types.ts';
import type { Writer } from './writer.ts';

/** What one of the write pool's methods does with its statement. */
export type StatementRun<T> = (writer: Writer, sql: string, params: SqlParams | undefined) => T;

/** A statement for its turn: what was passed is what is written, whatever the caller does with it meanwhile. */
export function statementForLater<T>(
  act: StatementRun<T>,
  sql: string,
  params: SqlParams | undefined,
): (writer: Writer) => T {
  const copied = copyParams(params);
  return (writer) => act(writer, sql, copied);
}

export function runOn(writer: Writer, sql: string, params: SqlParams | undefined): RunResult {
  return writer.run(sql, params);
}

export function allOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown[] {
  return writer.all(sql, params);
}

export function firstOn(writer: Writer, sql: string, params: SqlParams | undefined): unknown {
  return writer.get(sql, params);
}

export function valuesOn(writer: Writer, sql: string, params: SqlParams | undefined): SqlValue[][] {
  return writer.values(sql, params) as SqlValue[][];
}

export function executeOn(writer: Writer, sql: string, params: SqlParams | undefined): QueryResult<unknown> {
  return writer.execute(sql, params);
}
